import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from longreach.core.errors import LongreachError
from longreach.decoding.encoder import Encoder
from longreach.decoding.reading import token_losses
from longreach.evaluation.readings import read_text
from longreach.evaluation.rows import Row
from longreach.evaluation.tasks.base import TaskPlan
from longreach.evaluation.tasks.loss.loss import Loss
from longreach.evaluation.text import cut_windows
from longreach.testing.models import random_ids, tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

TEMPLATE = Row(task="", model="m", method="", length=0, version="1", settings={})


def plan(style="digits", edges=(64, 128, 200), count=2):
    encoder = Encoder(tokenizer(style))
    windows = tuple(cut_windows(encoder, real_text(), edges[-1] - len(encoder.prefix), count))
    return TaskPlan(
        encoder=encoder, edges=edges, asked=frozenset(edges), windows=windows, depths=(), samples=1, seed=0, row=TEMPLATE
    )  # fmt: skip


def readings(of):
    return [Loss().reading(of, number) for number in range(len(of.windows))]


def scored(model, reading, chunk_size=512):
    return [row for rows in read_text(model, reading, wanted=lambda row: True, chunk_size=chunk_size) for row in rows]


@pytest.mark.parametrize("chunk_size", [1, 7, 64, 512])
def test_token_losses_are_the_cross_entropy_of_a_full_forward(chunk_size):
    model, ids = tiny_model(), random_ids(2, 65)
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits
    naive = cross_entropy(logits[:, :-1].double().flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(2, 64)
    assert torch.allclose(token_losses(model, ids, chunk_size=chunk_size), naive, atol=2e-5)


@pytest.mark.parametrize("style", ["digits", "plain"])
def test_a_row_is_the_mean_over_its_block(style):
    model = tiny_model(vocab_size=VOCABULARY)
    of = plan(style)
    assert Loss().reads_once
    for reading in readings(of):
        rows = scored(model, reading, chunk_size=50)
        ids = torch.from_numpy(reading.ids).long()[None]
        assert ids.shape == (1, 200)
        with torch.no_grad():
            logits = model(ids, use_cache=False).logits[0].double()
        each = [cross_entropy(logits[t - 2], ids[0, t - 1]).item() for t in range(2, 201)]  # of tokens number 2 to 200
        means = [np.mean(each[0:63]), np.mean(each[63:127]), np.mean(each[127:199])]
        assert [row.score for row in rows] == pytest.approx(means, abs=1e-5)
        assert [row.n for row in rows] == [63, 64, 72]
        assert [(row.settings["start"], row.length) for row in rows] == [(0, 64), (64, 128), (128, 200)]
        assert [row.settings["span"] for row in rows] == [[1, 64], [64, 128], [128, 200]]


def test_octaves_are_cut_into_up_to_eight_blocks_of_at_least_64_tokens():
    (reading,) = readings(plan(edges=(100, 230, 700, 2000), count=1))
    spans = {}
    for row in reading.losses:
        spans.setdefault(row.length, []).append(row.settings["span"])
    assert {length: len(found) for length, found in spans.items()} == {100: 1, 230: 2, 700: 7, 2000: 8}
    together = [span for found in spans.values() for span in found]
    assert [begin for begin, _ in together[1:]] == [end for _, end in together[:-1]], "no token is left out, none counts twice"
    assert (together[0][0], together[-1][1]) == (1, 2000)
    assert all(max(sizes) - min(sizes) <= 2 for sizes in ([end - begin for begin, end in found] for found in spans.values()))
    assert all(row.n == row.settings["span"][1] - row.settings["span"][0] for row in reading.losses)


def test_every_window_begins_with_the_special_tokens():
    assert all(reading.ids[0] == 0 for reading in readings(plan("digits")))
    assert all(reading.ids[0] != 0 for reading in readings(plan("plain")))


def test_windows_have_rows_of_their_own_that_no_seed_changes():
    first, second = readings(plan())
    assert {row.identity for row in first.losses}.isdisjoint(row.identity for row in second.losses)
    assert {row.seed for row in (*first.losses, *second.losses)} == {None}
    assert len({row.settings["text"] for row in first.losses}) == len({row.settings["text"] for row in second.losses}) == 1


def test_a_longer_plan_has_the_rows_of_a_shorter_one():
    """So that what was measured to a length counts when more is measured."""
    (short,), (long,) = readings(plan(edges=(64, 128), count=1)), readings(plan(edges=(64, 128, 256), count=1))
    assert [row.identity for row in short.losses] == [row.identity for row in long.losses[: len(short.losses)]]


def test_a_loss_that_is_no_number_is_an_error():
    model = tiny_model(vocab_size=VOCABULARY)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(LongreachError, match="not a finite number at length 64"):
        scored(model, readings(plan())[0])

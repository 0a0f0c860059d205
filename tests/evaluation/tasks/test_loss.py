import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from longreach.core.errors import LongreachError
from longreach.evaluation.rows import Row
from longreach.evaluation.tasks.base import TaskPlan
from longreach.evaluation.tasks.loss.loss import Loss, token_losses
from longreach.evaluation.text import Encoder, cut_windows
from longreach.testing.models import random_ids, tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

TEMPLATE = Row(task="", model="m", method="", length=0, version="1", settings={})


def plan(style="digits", edges=(64, 128, 200), count=2):
    encoder = Encoder(tokenizer(style))
    windows = tuple(cut_windows(encoder, real_text(), edges[-1] - len(encoder.prefix), count))
    return TaskPlan(encoder=encoder, edges=edges, windows=windows, depths=(), samples=1, seed=0, row=TEMPLATE)


@pytest.mark.parametrize("chunk_size", [1, 7, 64, 512])
def test_token_losses_are_the_cross_entropy_of_a_full_forward(chunk_size):
    model, ids = tiny_model(), random_ids(2, 65)
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits
    naive = cross_entropy(logits[:, :-1].double().flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(2, 64)
    assert torch.allclose(token_losses(model, ids, chunk_size=chunk_size), naive, atol=2e-5)


@pytest.mark.parametrize("style", ["digits", "plain"])
def test_a_row_is_the_mean_over_its_octave(style):
    model = tiny_model(vocab_size=VOCABULARY)
    of = plan(style)
    cases = Loss().cases(of)
    scores = Loss().score(model, cases, chunk_size=50)
    assert len(cases) == 2
    for case, values in zip(cases, scores, strict=True):
        ids = torch.from_numpy(case.ids).long()[None]
        assert ids.shape == (1, 200)
        with torch.no_grad():
            logits = model(ids, use_cache=False).logits[0].double()
        each = [cross_entropy(logits[t - 2], ids[0, t - 1]).item() for t in range(2, 201)]  # of tokens number 2 to 200
        means = [np.mean(each[0:63]), np.mean(each[63:127]), np.mean(each[127:199])]
        assert values == pytest.approx(means, abs=1e-5)
        assert [row.n for row in case.rows] == [63, 64, 72]
        assert [(row.settings["start"], row.length) for row in case.rows] == [(0, 64), (64, 128), (128, 200)]


def test_every_window_begins_with_the_special_tokens():
    assert all(case.ids[0] == 0 for case in Loss().cases(plan("digits")))
    assert all(case.ids[0] != 0 for case in Loss().cases(plan("plain")))


def test_windows_have_rows_of_their_own_that_no_seed_changes():
    first, second = Loss().cases(plan())
    assert {row.identity for row in first.rows}.isdisjoint(row.identity for row in second.rows)
    assert {row.seed for row in (*first.rows, *second.rows)} == {None}


def test_a_loss_that_is_no_number_is_an_error():
    model = tiny_model(vocab_size=VOCABULARY)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(LongreachError, match="not a finite number at length 64"):
        Loss().score(model, Loss().cases(plan()), chunk_size=512)

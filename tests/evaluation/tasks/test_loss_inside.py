from statistics import fmean

import pytest
import torch
from torch.nn.functional import cross_entropy

from longreach.core.errors import LongreachError
from longreach.evaluation.tasks.loss.loss_inside import LossInside
from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY
from tests.evaluation.tasks.test_loss import plan, readings

WINDOW = 64


@pytest.mark.parametrize("style", ["digits", "plain"])
def test_every_token_is_predicted_from_half_a_window_to_a_window(style):
    model, of = tiny_model(vocab_size=VOCABULARY), plan(style)
    task = LossInside(window_size=WINDOW)
    cases = task.cases(of)
    prefix = len(of.encoder.prefix)
    step = (WINDOW - prefix) // 2
    for case, scores in zip(cases, task.score(model, cases, chunk_size=50), strict=True):
        ids = torch.from_numpy(case.ids).long()
        each = []
        for start in range(WINDOW, 200, step):
            end = min(start + step, 200)
            piece = torch.cat([ids[:prefix], ids[end - WINDOW + prefix : end]])
            assert len(piece) == WINDOW
            assert WINDOW - (end - start) >= WINDOW // 2  # tokens before the first that is predicted
            with torch.no_grad():
                logits = model(piece[None], use_cache=False).logits[0].double()
            each += cross_entropy(logits[start - end - 1 : -1], ids[start:end], reduction="none").tolist()
        assert scores == pytest.approx((fmean(each[:64]), fmean(each[64:])), abs=1e-5)


def test_rows_are_those_of_the_loss_beyond_the_window():
    inside = [row for case in LossInside(window_size=WINDOW).cases(plan()) for row in case.rows]
    beyond = [row for reading in readings(plan()) for row in reading.losses if row.length > WINDOW]
    assert [(row.length, row.n, row.settings) for row in inside] == [(row.length, row.n, row.settings) for row in beyond]
    assert {row.task for row in inside} == {"loss_inside:window_size=64"}


def test_a_loss_that_is_no_number_is_an_error():
    model = tiny_model(vocab_size=VOCABULARY)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    task = LossInside(window_size=WINDOW)
    with pytest.raises(LongreachError, match="not a finite number at length 128"):
        task.score(model, task.cases(plan()), chunk_size=512)

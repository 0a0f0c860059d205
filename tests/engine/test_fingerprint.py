"""Fingerprints of models: the same for the same model, wherever it comes from, and another for every other."""

import pytest
import torch

from longreach.engine.fingerprint import fingerprint
from longreach.testing.models import tiny_model


def test_it_is_of_the_model_not_of_where_it_comes_from(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert fingerprint(again) == fingerprint(tiny_model()) == fingerprint(model)


def test_it_is_sixteen_digits():
    assert len(fingerprint(tiny_model())) == 16
    int(fingerprint(tiny_model()), 16)


def tuned(place):
    """A model with one other number in a norm of 64."""
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[place] += 1e-3
    return model


@pytest.mark.parametrize(
    "other",
    [
        lambda: tiny_model(seed=1), lambda: tiny_model(max_position_embeddings=64), lambda: tiny_model("mistral"),
        lambda: tiny_model().double(), lambda: tuned(0), lambda: tuned(-1),
    ],
    ids=["weights", "window", "family", "dtype", "first", "last"],
)  # fmt: skip
def test_other_models_have_others(other):
    assert fingerprint(other()) != fingerprint(tiny_model())

import pytest
import torch

from longreach.engine.apply import apply
from longreach.testing.conformance.base import cached_logits, logits
from longreach.testing.models import random_ids, tiny_model

ENDLESS = "exact=5,chunk_size=3"


@pytest.mark.parametrize(("steps", "bits"), [("eight=none", 8), ("eight=0", 4), ("eight=0,four=0", 2)])
def test_one_step_without_an_end_is_one_width(steps, bits):
    model, ids = tiny_model().double(), random_ids(2, 50)
    found = []
    for spec in (f"staircase:{ENDLESS},{steps}", f"quantised:{ENDLESS},bits={bits}"):
        with apply(model, spec):
            found.append((logits(model, ids), cached_logits(model, ids, (20, 1, 29))))
    assert all(torch.equal(ours, wanted) for ours, wanted in zip(*found, strict=True))
    assert float((found[0][0] - logits(model, ids)).abs().max()) > 1e-3

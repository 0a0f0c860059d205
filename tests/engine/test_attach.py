import pytest
import torch

import longreach
from longreach.engine.apply import applied
from longreach.testing.models import random_ids, tiny_model


@torch.no_grad()
def test_methods_stay_until_they_are_detached():
    model, ids = tiny_model(max_position_embeddings=32), random_ids(1, 60)
    stock = model(ids).logits
    handle = longreach.attach(model, ["yarn:factor=4", "log_n"], warn=False)
    assert applied(model) == "yarn:factor=4+log_n"
    assert not torch.equal(model(ids).logits, stock)
    handle.detach()
    handle.detach()
    assert applied(model) == ""
    assert torch.equal(model(ids).logits, stock)


def test_it_can_be_a_context_and_refuses_as_apply_does():
    model = tiny_model()
    with longreach.attach(model, "log_n"), pytest.raises(longreach.UnsupportedError, match="log_n is applied to it"):
        longreach.attach(model, "yarn:factor=2")
    assert applied(model) == ""
    with pytest.raises(longreach.LongreachError, match="unknown method"):
        longreach.attach(model, "yarm")
    assert applied(model) == ""

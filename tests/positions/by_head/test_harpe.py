import pytest
import torch

from longreach.core.errors import LongreachError
from longreach.engine.apply import apply
from longreach.engine.rope_config import with_rope
from longreach.positions.base import Rope
from longreach.positions.by_head.harpe import Harpe
from longreach.testing.models import random_ids, tiny_model
from tests.positions.ropes import assert_close


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("heads", [2, 32])
def test_each_head_has_a_base_of_its_own(heads, descending):
    # Equations 6 and 9: b_h = b_min + h (b_max - b_min) / (N - 1), theta_h,i = b_h ** (-2 (i - 1) / d).
    rope = Rope(theta=10_000.0, dim=128, trained_window=4096, num_heads=heads)
    ours, factor = Harpe(base_min=1e6, base_max=5e6, descending=descending).inv_freq(rope, 1)
    bases = [1e6 + h * 4e6 / (heads - 1) for h in range(heads)]
    for found, base in zip(ours, bases[::-1] if descending else bases, strict=True):
        assert_close(found, [base ** (-2 * i / 128) for i in range(64)])
    assert factor == 1.0


def test_heads_of_one_base_are_a_model_with_that_base():
    model, ids = tiny_model("qwen3"), random_ids(2, 40)
    other = tiny_model("qwen3", rope_parameters={"rope_type": "default", "rope_theta": 50_000.0})
    with torch.no_grad():
        wanted = other(ids, use_cache=False).logits
        with apply(model, "harpe:base_min=50000,base_max=50000"):
            ours = model(ids, use_cache=False).logits
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4)


def test_it_stands_beside_methods_that_forget():
    model, ids = tiny_model(), random_ids(1, 60)
    with torch.no_grad(), apply(model, "harpe:base_min=20000,base_max=80000+sinks:num_sinks=2,window_size=16"):
        assert model(ids, use_cache=False).logits.isfinite().all()


def test_it_cannot_be_a_plain_config():
    with pytest.raises(LongreachError, match="transformers has no rope type for it"):
        with_rope(tiny_model().config, Harpe(base_min=2e4, base_max=8e4))

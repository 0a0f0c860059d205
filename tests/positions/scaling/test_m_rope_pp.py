import dataclasses
import math

import pytest
import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from longreach.core.errors import UnsupportedError
from longreach.engine.apply import apply
from longreach.engine.rope_config import rope_of
from longreach.positions.base import Rope
from longreach.positions.scaling.m_rope_pp import MRopePp
from longreach.testing.models import VOCABULARY, random_ids, randomize
from tests.positions.ropes import ROPES, assert_close

QWEN2_VL = Rope(theta=1_000_000.0, dim=128, trained_window=32768, sections=(16, 24, 24))


def piecewise(rope, factor, x):
    """Section 3.2, pairs d = 1 ... 8x: kept up to 2x, divided by s from 5x on, and a ramp over r = L / wavelength between."""
    theta = {d: rope.theta ** (-2 * (d - 1) / rope.dim) for d in range(1, 8 * x + 1)}
    r = {d: rope.trained_window * theta[d] / (2 * math.pi) for d in theta}
    found = []
    for d in theta:
        if d <= 2 * x:
            found.append(theta[d])
        elif d <= 5 * x:
            found.append((1 / factor + (1 - 1 / factor) * (r[d] - r[5 * x]) / (r[2 * x] - r[5 * x])) * theta[d])
        else:
            found.append(theta[d] / factor)
    return found


@pytest.mark.parametrize("rope", [QWEN2_VL, *ROPES], ids=str)
@pytest.mark.parametrize("factor", [1, 4, 8.5])
def test_time_is_kept_and_width_interpolated(rope, factor):
    ours, attention_factor = MRopePp(factor=factor).inv_freq(rope, 1)
    assert_close(ours, piecewise(rope, factor, rope.dim // 16))
    assert attention_factor == 1.0


@pytest.fixture
def seeing():
    """A tiny model with a rotary embedding for its language model and another for what it sees."""
    text = {
        "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1, "intermediate_size": 96,
        "vocab_size": VOCABULARY, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 4}
    tokens = {"image_token_id": 90, "video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}
    return randomize(Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **tokens)).eval())


def test_the_language_model_of_a_model_that_sees_is_scaled(seeing, tmp_path):
    rope = rope_of(seeing.config)
    assert (rope.dim, rope.sections) == (16, (2, 3, 3))
    ids, sight = random_ids(1, 50), seeing.model.visual.rotary_pos_emb.inv_freq.clone()
    with torch.no_grad():
        stock = seeing(ids).logits
        with apply(seeing, MRopePp(factor=4)):
            scaled = seeing(ids).logits
            assert torch.equal(seeing.model.language_model.rotary_emb.inv_freq, MRopePp(factor=4).inv_freq(rope, 1)[0])
            assert torch.equal(seeing.model.visual.rotary_pos_emb.inv_freq, sight)
            type(seeing).save_pretrained(seeing, tmp_path)
        plain = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path).eval()
        assert (scaled - stock).abs().max() > 0.1
        torch.testing.assert_close(plain(ids).logits, scaled, rtol=0, atol=1e-4)
        assert torch.equal(seeing(ids).logits, stock)


def test_other_sections_are_refused():
    with pytest.raises(UnsupportedError, match="its rotary embedding has 2 sections"):
        MRopePp(factor=4).inv_freq(dataclasses.replace(QWEN2_VL, sections=(32, 32)), 1)

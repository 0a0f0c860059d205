"""Llama-3-80K: adapters tuned overnight on long question answering under a much larger base.

Paper: Extending Llama-3's Context Ten-Fold Overnight, 2024, arXiv:2404.19553

    longreach tune MODEL --to 80k --data FOLDER --out DIR --recipe llama3_80k

From the paper: LoRA of rank 32 and alpha 16 on the attention's four matrices, the embeddings trained too; rate 5e-5, 8 sequences a step; a
base of 200M in place of 500k for a stretch of 10; 20,000 samples: 3,500 of long questions and answers, 5,000 of running text, the rest
long instructions.
Differs from the paper: the questions are made from the text itself, without GPT-4, and stand for the instructions, too; an output head
of its own is trained with the embeddings; no 4-bit weights, for adapters merge into those with loss; a model that is stretched less gets a
base that grows less, in proportion.
"""

from longreach.core.method import MethodInfo
from longreach.positions.base import Rope
from longreach.positions.scaling.ntk import factor_for
from longreach.training.plan import TuneConfig

INFO = MethodInfo(title="Extending Llama-3's Context Ten-Fold Overnight", paper="arXiv:2404.19553", training_free=False)


def recipe(rope: Rope, target: int) -> TuneConfig:
    """The settings to stretch a model with this rotary embedding to `target` tokens."""
    growth = max(1.0, 400 * target / rope.trained_window / 10)
    return TuneConfig(
        target=target,
        method=f"ntk:factor={factor_for(rope, growth):.6g}",
        sampler="full_length",
        mixture={"questions": 0.75, "long": 0.25},
        steps=2500,
        batch_size=8,
        accumulate=8,
        lr=5e-5,
        schedule="linear",
        rank=32,
        alpha=16,
        targets=("q_proj", "k_proj", "v_proj", "o_proj"),
        parts=("embeddings",),
    )

"""Llama 2 Long: continued training at the target length under an adjusted base frequency.

Paper: Effective Long-Context Scaling of Foundation Models, 2023, arXiv:2309.16039

    longreach tune MODEL --to 32k --data FOLDER --out DIR --full --recipe llama2_long

From the paper: base 500,000 in place of 10,000 for a stretch of 8 (4k to 32k), sequences of the target's length, rate 2e-5 with 2,000 of
100,000 steps warming up and cosine decay, 4M tokens a batch; weight decay 0.1 is Llama 2's.
Differs from the paper: for other stretches the base grows in
proportion, 50 for each 8; 100 steps of 64 sequences in place of 400B tokens.
"""

from longreach.core.method import MethodInfo
from longreach.positions.base import Rope
from longreach.positions.scaling.ntk import factor_for
from longreach.training.plan import TuneConfig

INFO = MethodInfo(title="Effective Long-Context Scaling of Foundation Models", paper="arXiv:2309.16039", training_free=False)


def recipe(rope: Rope, target: int) -> TuneConfig:
    """The settings to stretch a model with this rotary embedding to `target` tokens."""
    growth = max(1.0, 50 * target / rope.trained_window / 8)
    return TuneConfig(
        target=target,
        method=f"ntk:factor={factor_for(rope, growth):.6g}",
        sampler="full_length",
        mixture={"long": 1.0},
        steps=100,
        batch_size=64,
        accumulate=16,
        lr=2e-5,
        warmup=0.02,
        schedule="cosine",
        weight_decay=0.1,
        full=True,
    )

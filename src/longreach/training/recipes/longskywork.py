"""LongSkywork: chunks of several documents dealt out in turn, so that every document is a long one, and questions about the text.

Paper: LongSkywork: A Training Recipe for Efficiently Extending Context Length in Large Language Models, 2024, arXiv:2406.00605

    longreach tune MODEL --to 32k --data FOLDER --out DIR --full --recipe longskywork

From the paper: NTK-aware scaling, chunk-interleaved pretraining, then 200 iterations of tuning on synthetic long tasks.
Differs from the paper: both at once,
in equal parts beside short text; a factor of twice the stretch; records that are looked up later (the recall exercises) stand in for its
synthetic tables, and no instructions are needed. The paper's rate and batch are for 13B parameters; these are for small models.
"""

from longreach.core.lengths import factor_to
from longreach.core.method import MethodInfo
from longreach.positions.base import Rope
from longreach.training.plan import TuneConfig

INFO = MethodInfo(
    title="LongSkywork: A Training Recipe for Efficiently Extending Context Length in Large Language Models",
    paper="arXiv:2406.00605",
    training_free=False,
)


def recipe(rope: Rope, target: int) -> TuneConfig:
    """The settings to stretch a model with this rotary embedding to `target` tokens."""
    return TuneConfig(
        target=target,
        method=f"ntk:factor={factor_to(2 * target, rope.trained_window)}",
        sampler="full_length",
        mixture={"interleaved": 0.4, "recall": 0.3, "short": 0.3},
        steps=200,
        batch_size=16,
        accumulate=16,
        lr=2e-5,
        warmup=0.05,
        schedule="cosine",
        full=True,
    )

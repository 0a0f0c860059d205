"""ProLong: long books and code mixed with short text, trained at twice the length that the model is meant for.

Paper: How to Train Long-Context Language Models (Effectively), 2024, arXiv:2410.02660

    longreach tune MODEL --to 64k --data FOLDER --out DIR --full --recipe prolong

From the paper: 60 % long sources and 40 % short ones; attention never crosses from one document to the next; a base frequency raised by
twice the stretch (8k to 64k: from 5e5 to 8e6); rate 1e-5, a tenth of the steps warming up, cosine decay; weight decay 0.1; batches of 4M
tokens (64 sequences of 64k).
Differs from the paper: the mixture draws whatever lies in the data folder (the paper: half code repositories, half books, and
eight sources of short text), the rate decays to 0 in place of a tenth of its peak, and 100 steps in place of 20B tokens.
"""

from longreach.core.method import MethodInfo
from longreach.positions.base import Rope
from longreach.positions.scaling.ntk import factor_for
from longreach.training.plan import TuneConfig

LONGER = 2  # the length trained at, over the length meant

INFO = MethodInfo(title="How to Train Long-Context Language Models (Effectively)", paper="arXiv:2410.02660", training_free=False)


def recipe(rope: Rope, target: int) -> TuneConfig:
    """The settings to stretch a model with this rotary embedding to `target` tokens."""
    reach = LONGER * target
    growth = 2 * reach / rope.trained_window
    return TuneConfig(
        target=target,
        train_to=reach,
        method=f"ntk:factor={factor_for(rope, growth):.6g}",
        sampler="full_length",
        mixture={"long": 0.6, "short": 0.4},
        steps=100,
        batch_size=64,
        accumulate=16,
        lr=1e-5,
        warmup=0.1,
        schedule="cosine",
        weight_decay=0.1,
        full=True,
    )

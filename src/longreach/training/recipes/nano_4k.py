"""nano from 512 to 4096 tokens on sequences of 512: the model that docs/ calls nano-4k.

Paper: PoSE: Efficient Context Window Extension of LLMs via Positional Skip-wise Training, 2023, arXiv:2309.10400

    longreach tune nano --to 4096 --data FOLDER --out nano-4k --recipe nano_4k

From the paper: sequences of the trained length, two chunks, skips up to the target.
Differs from the paper: every weight is trained, at a rate for a small model; three tenths of the sequences are short text, which keeps the
model what it was, and a fifth recall exercises. Far distances are those of Self-Extend, with a quarter of the window for neighbours.

FOLDER is to hold books and Python source, as nano was trained on.

nano-4k-yarn is trained for scaled frequencies instead, at stock speed and for every server, but needs log_n on top to recall: the same
with --method yarn:factor=16 --steps 900 --lr 1e-3 --mix long=0.4,short=0.4,recall=0.2
"""

import math

from longreach.core.method import MethodInfo
from longreach.positions.base import Rope
from longreach.training.plan import TuneConfig

INFO = MethodInfo(
    title="PoSE: Efficient Context Window Extension of LLMs via Positional Skip-wise Training",
    paper="arXiv:2309.10400",
    training_free=False,
)


def recipe(rope: Rope, target: int) -> TuneConfig:
    """The settings to stretch a model with this rotary embedding to `target` tokens."""
    neighbours = rope.trained_window // 4
    group = math.ceil(target / (rope.trained_window - neighbours))
    return TuneConfig(
        target=target,
        method=f"self_extend:neighbours={neighbours},group={group}+log_n",
        sampler="pose",
        mixture={"long": 0.5, "short": 0.3, "recall": 0.2},
        steps=450,
        batch_size=16,
        lr=5e-4,
        warmup=0.03,
        full=True,
    )

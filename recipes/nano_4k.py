"""nano from 512 to 4096 tokens on sequences of 512: the model that docs/ calls nano-4k.

Paper: PoSE: Efficient Context Window Extension of LLMs via Positional Skip-wise Training, 2023, arXiv:2309.10400

    longreach tune nano --to 4096 --data FOLDER --out nano-4k --recipe recipes/nano_4k.py

From the paper: sequences of the trained length, two chunks, skips up to the target. Ours: every weight is trained, at a rate for a small
model; two fifths of the sequences are short text, which keeps the model what it was, and one fifth recall exercises. FOLDER is to hold
books and Python source, as nano was trained on.
"""

from longreach.positions.base import Rope
from longreach.training.plan import TuneConfig


def recipe(rope: Rope, target: int) -> TuneConfig:
    """The settings to stretch a model with this rotary embedding to `target` tokens."""
    return TuneConfig(
        target=target,
        method=f"yarn:factor={target / rope.trained_window:g}",
        sampler="pose",
        mixture={"long": 0.4, "short": 0.4, "recall": 0.2},
        steps=1100,
        batch_size=16,
        lr=1e-3,
        warmup=0.03,
        full=True,
    )

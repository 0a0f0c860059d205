"""Bootstrap your own context length: long instruction data that needs short contexts only, and a base that grows with each doubling.

Paper: Bootstrap Your Own Context Length, 2024, arXiv:2412.18860

    longreach tune MODEL --to 32k --data FOLDER --out DIR --full --recipe bootstrap

From the paper: the base is quadrupled for each doubling of the length; of 8.3B tokens 4.6B are synthetic tasks over many documents, the
rest are short instructions and long text; the loss counts every token of a long sample.
Differs from the paper: the tasks are extracted from the documents
(`longreach.data.bootstrap`), where the paper has GPT-4o write instructions, summaries of chunks and responses, and E5-mistral-7b retrieve;
there are no tasks of long output; short running text stands for short instructions; one stage goes to the target at once, where the paper
has one for each doubling (256k, 512k, 1M from 128k); rate, batch and steps.
"""

from longreach.core.method import MethodInfo
from longreach.positions.base import Rope
from longreach.positions.scaling.ntk import factor_for
from longreach.training.plan import TuneConfig

INFO = MethodInfo(title="Bootstrap Your Own Context Length", paper="arXiv:2412.18860", training_free=False)


def recipe(rope: Rope, target: int) -> TuneConfig:
    """The settings to stretch a model with this rotary embedding to `target` tokens: the base grows by 4 for each doubling."""
    growth = max(1.0, (target / rope.trained_window) ** 2)
    return TuneConfig(
        target=target,
        method=f"ntk:factor={factor_for(rope, growth):.6g}",
        sampler="full_length",
        mixture={"bootstrap": 0.55, "long": 0.25, "short": 0.2},
        steps=100,
        batch_size=16,
        accumulate=16,
        lr=1e-5,
        warmup=0.05,
        schedule="cosine",
        full=True,
    )

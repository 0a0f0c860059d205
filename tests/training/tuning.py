"""What the tests of tuning share: a tiny model with a window of 64 tokens, texts, and a run of a few steps."""

from longreach.data.sources import Texts
from longreach.testing.models import tiny_model
from longreach.training.plan import TuneConfig
from longreach.training.tune import tune
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

WINDOW, TARGET = 64, 256
TEXTS = Texts(names=("long", "short"), contents=(real_text()[:40_000], real_text()[50_000:50_300]), skipped=())
HELD_OUT = real_text()[100_000:110_000]


def model(family="llama"):
    return tiny_model(family, vocab_size=VOCABULARY, max_position_embeddings=WINDOW)


def config(**changes):
    return TuneConfig(**{"target": TARGET, "steps": 4, "batch_size": 2, "lr": 1e-3, **changes})


def run(folder, *, of=None, save_every=0.0, held_out=HELD_OUT, **changes):
    folder.mkdir(exist_ok=True)
    return tune(of or model(), tokenizer(), TEXTS, config(**changes), folder, held_out=held_out, save_every=save_every)

"""The gate that a tuned model has to pass: inside the trained window it must predict text as well as before."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.core.errors import InputError
from longreach.core.progress import SILENT, Progress
from longreach.data.documents import Ids, encode, prefix
from longreach.decoding.reading import CHUNK, token_losses

MOST_RISE = 0.01  # of the loss before
_COUNTS = (64, 32, 16, 8, 4, 2)  # of windows; the most that the text has room for, in no more than so many tokens where there is a choice
_TOKENS = 2**15
_CHARACTERS = 16  # more than the tokens of any text have on average
_AT_ONCE = 8
_LOGITS = 2**26  # float32 values of the logits of one chunk (256 MiB)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The mean loss inside the trained window, in nats a token, before and after tuning; `untrained`: under its methods, before it."""

    before: float
    untrained: float
    after: float

    @property
    def rise(self) -> float:
        """By how much the loss rose, as a share of what it was."""
        return self.after / self.before - 1

    @property
    def passed(self) -> bool:
        """Whether it rose by no more than MOST_RISE (a loss that is no number has not passed)."""
        return self.after <= self.before * (1 + MOST_RISE)

    @property
    def falling(self) -> bool:
        """Whether it is the methods that raised it, and training has made it less."""
        return self.before < self.after < self.untrained

    @property
    def shortfall(self) -> str:
        """Where it misses the bar, in words; empty where it has passed."""
        return "" if self.passed else f"loss inside the window {self.rise:+.1%} > +{MOST_RISE:.0%} by tuning"


def held_out_windows(text: str, tokenizer: PreTrainedTokenizerBase, window: int) -> list[Ids]:
    """64 windows of `window` tokens (fewer, down to 2, where they are long or the text is short), with the special tokens, spread evenly.

    Raises: InputError for a text that is shorter.
    """
    first = prefix(tokenizer)
    length = window - len(first)
    for count in (count for count in _COUNTS if count * window <= _TOKENS or count == _COUNTS[-1]):
        starts = [len(text) * number // count for number in range(count)]
        parts = [text[start : start + min(len(text) // count, length * _CHARACTERS)] for start in starts]
        found = [encode(tokenizer, part)[:length] for part in parts]
        if all(len(ids) == length for ids in found):
            return [np.array([*first, *ids], dtype=np.int32) for ids in found]
    raise InputError(
        f"too little held-out text: it has {len(encode(tokenizer, text))} tokens, and {_COUNTS[-1]} windows of {window} do not fit; "
        "give a longer --text"
    )


@torch.no_grad()
def short_loss(model: PreTrainedModel, windows: Sequence[Ids], progress: Progress = SILENT, label: str = "short loss") -> float:
    """Mean loss of the next token over the windows, in nats, in eval mode."""
    progress.start(label, sum(len(window) for window in windows))
    training = model.training
    model.eval()
    total = 0.0
    at_once = max(1, min(_AT_ONCE, _LOGITS // (min(CHUNK, len(windows[0])) * model.config.get_text_config().vocab_size)))
    try:
        for start in range(0, len(windows), at_once):
            ids = torch.from_numpy(np.stack(windows[start : start + at_once])).long().to(model.device)
            total += float(token_losses(model, ids, chunk_size=CHUNK, progress=progress).sum())
    finally:
        model.train(training)
    return total / sum(len(window) - 1 for window in windows)

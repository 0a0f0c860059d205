"""Context length probing: how a prediction changes with every token that the context reaches farther back.

Source: Black-box language model explanation by context length probing, 2023, arXiv:2212.14815. For a target token and the c tokens before
it, D(c) = KL(p_longest || p_c) says how far the prediction is from that with the longest context, and the importance of the token at
distance c is what this falls by when that token comes in: D(c - 1) - D(c).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from longreach.core.errors import InputError, LongreachError
from longreach.core.progress import SILENT, Progress
from longreach.decoding.reading import CHUNK, read

Values = npt.NDArray[np.float64]
_LOGITS = 2**27  # float32 values that a batch of windows may have (512 MiB)


@dataclass(frozen=True, kw_only=True)
class ContextProbe:
    """What was found of a text of T tokens with contexts of up to C.

    Args: losses: [C + 1, T] nats: of token t after the c tokens before it; nan where there are not so many, and for c = 0 where nothing
    stands before a text (no BOS). divergences: the same for KL(p_longest || p_c) of the prediction of t.
    """

    losses: Values
    divergences: Values

    @property
    def importances(self) -> Values:
        """[C + 1, T]: what the divergence of token t falls by when the token c places before it comes in; nan where it is not known."""
        falls = np.full_like(self.divergences, np.nan)
        falls[1:] = self.divergences[:-1] - self.divergences[1:]
        return falls

    @property
    def mean_losses(self) -> Values:
        """[C + 1]: by the length of the context, over the tokens that have the longest one, which are the same at every length."""
        whole = self.losses[:, len(self.losses) - 1 :]
        return np.asarray(whole.mean(1))


@torch.no_grad()
def probe_contexts(
    model: PreTrainedModel,
    ids: Tensor,
    *,
    longest: int,
    prefix: list[int] | None = None,
    chunk_size: int = CHUNK,
    progress: Progress = SILENT,
) -> ContextProbe:
    """Read the text [T] from each of its tokens on, `longest` tokens far, and compare what is predicted of every token.

    Args: longest: context in tokens (>= 1). prefix: special tokens that stand before every window, as before any text.
    Raises: InputError for fewer than two tokens, or a context of none; LongreachError where logits are not finite.
    """
    if len(ids) < 2:
        raise InputError("the text has fewer than two tokens, so that nothing is predicted")
    if longest < 1:
        raise InputError(f"longest={longest} must be at least 1")
    before = prefix or []
    count, longest = len(ids), min(longest, len(ids) - 1)
    losses, divergences = (np.full((longest + 1, count), np.nan) for _ in range(2))
    references: dict[int, Tensor] = {}  # target -> log-probabilities [V] with the longest context, until its last window has been read
    for start, logs in _windows(model, ids, longest, before, chunk_size, progress):
        first = 0 if before else 1  # of what stands before a window the last token predicts the window's first
        for length in range(first, len(logs) + first):
            target = start + length
            if target >= count:
                break
            log = logs[length - first]
            losses[length, target] = -float(log[ids[target]])
            wanted = references.setdefault(target, log)
            divergences[length, target] = max(0.0, float((wanted.exp() * (wanted - log)).sum()))
        references.pop(start + first, None)
    return ContextProbe(losses=losses, divergences=divergences)


def _windows(
    model: PreTrainedModel, ids: Tensor, longest: int, before: list[int], chunk_size: int, progress: Progress
) -> Iterator[tuple[int, Tensor]]:
    """For each start the log-probabilities [n, V] in float64 of what follows each token of its window, and of what follows the prefix.

    Windows that the text's end would make shorter are filled up behind; nobody looks at what follows there.
    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    size = max(1, _LOGITS // (vocabulary * (longest + len(before))))
    starts = list(range(len(ids) if before else len(ids) - 1))
    head = torch.tensor(before, dtype=torch.long)
    padded = torch.cat([ids.cpu(), ids.new_zeros(longest).cpu()])
    progress.start("windows", len(starts) * (longest + len(before)))
    for first in range(0, len(starts), size):
        batch = torch.stack([torch.cat([head, padded[start : start + longest]]) for start in starts[first : first + size]])
        parts = [part for _, part in read(model, batch.to(model.device), chunk_size=chunk_size, logits="all", progress=progress)]
        logits = torch.cat(parts, 1)[:, max(0, len(before) - 1) :]
        if not torch.isfinite(logits).all():
            raise LongreachError("the logits are not finite numbers; load the model with another dtype (float32)")
        for start, of in zip(starts[first : first + size], logits, strict=True):
            yield start, of.double().log_softmax(-1).cpu()

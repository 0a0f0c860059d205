"""How far a model really looks: which inputs its last prediction hangs on, by the gradient.

Source: Dissecting Transformer Length Extrapolation via the Lens of Receptive Field Analysis, 2022, arXiv:2212.10356 (the cumulative
normalized gradient): the norms of the gradients with respect to the input embeddings, divided by their sum, and added up from the last
token to the first. The empirical receptive field is the least number of nearest tokens that hold all but a share epsilon.

Differs from the paper: the first tokens are left out. Most models have learned to attend to the first one whatever it says (an attention
sink, arXiv:2309.17453), and its gradient would make any field as long as the text.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from longreach.core.errors import InputError, LongreachError
from longreach.core.progress import SILENT, Progress
from longreach.engine.whole_length import whole_length
from longreach.evaluation.text import Ids


@dataclass(frozen=True, kw_only=True)
class MeasuredField:
    """Args: tokens: the empirical receptive field, of the mean over all texts. each: that of every text by itself. length: tokens read.

    left_out: how many first tokens do not count. first: their share of the gradient. shares: [length - left_out] of the rest, by distance,
    nearest first; they add up to 1.
    """

    tokens: int
    each: tuple[int, ...]
    length: int
    left_out: int
    first: float
    shares: Tensor


def measure_field(
    model: PreTrainedModel, texts: Sequence[Ids], epsilon: float, *, left_out: int = 1, progress: Progress = SILENT
) -> MeasuredField:
    """The empirical receptive field of a model: of its loss on the last token of each text, after having read the others.

    Args: texts: ids, all of one length. epsilon: the share of the gradient that may lie beyond the field (0 to 1; 0: none). left_out: how
    many first tokens do not count.
    Raises: InputError for texts that do not fit; LongreachError where a gradient is not finite, or there is none.
    """
    length = len(texts[0]) - 1 if texts else 0
    if length <= left_out or any(len(text) != length + 1 for text in texts):
        raise InputError(f"a receptive field is measured on texts of one length, of at least {left_out + 2} tokens")
    found, first = [], []
    for text in texts:
        norms = _norms(model, torch.from_numpy(text)[None].long().to(model.device))
        kept = norms[: length - left_out]
        if not torch.isfinite(norms.sum()) or kept.sum() == 0:
            raise LongreachError("the gradient of the last token's loss is not a finite number above 0; load the model as float32")
        found.append(kept / kept.sum())
        first.append(float(1 - kept.sum() / norms.sum()))
        progress.advance(length)
    mean = torch.stack(found).mean(0)
    each = tuple(_field(shares, epsilon) for shares in found)
    return MeasuredField(
        tokens=_field(mean, epsilon), each=each, length=length, left_out=left_out, first=sum(first) / len(first), shares=mean
    )


def _field(shares: Tensor, epsilon: float) -> int:
    """Least number of nearest tokens beyond which no more than epsilon lies; summed from the far end, so that nothing is really nothing."""
    beyond = shares.flip(0).cumsum(0).flip(0)
    return int((beyond > epsilon).sum())


def _norms(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """[T] float64 of ids [1, T + 1]: the norm of the gradient for each token read, by distance from the last one."""
    seen: list[Tensor] = []
    with torch.enable_grad(), _embeddings(model, seen), whole_length(model, ids.shape[1] - 1):
        logits = model(ids[:, :-1], use_cache=False, logits_to_keep=1).logits[:, -1].float()
        (gradient,) = torch.autograd.grad(cross_entropy(logits, ids[:, -1]), seen[:1])
    return gradient[0].double().norm(dim=-1).cpu().flip(0)


@contextmanager
def _embeddings(model: PreTrainedModel, seen: list[Tensor]) -> Iterator[None]:
    """Inside, what the model's input embedding returns begins a graph of its own, and is kept in `seen`."""

    def begin(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    hook = model.get_input_embeddings().register_forward_hook(begin)
    try:
        yield
    finally:
        hook.remove()

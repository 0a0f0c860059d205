"""Tells where numbers stop being finite: logits that are NaN are refused, with the layer and the token that they come from."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from longreach.core.errors import LongreachError

_BEHIND = "all layers are, so it is what follows them (the last norm or the output head)"


class NotFiniteError(LongreachError):
    """Logits of which no token can be chosen."""


class _FoundError(Exception):
    """Ends the second pass where it has seen enough. The message is the place."""


def check_finite(logits: Tensor, model: PreTrainedModel, again: Callable[[], object], *, first: int = 0, whole: bool = True) -> Tensor:
    """The logits [1, N] themselves, where they can be used.

    Args: again: makes the pass that gave them once more, in which the place is looked for. first: tokens before that pass. whole: it reads
    all that the first one had before it.
    Raises: NotFiniteError for logits with NaN or plus infinity, or without a finite one, that says the layer and the token.
    """
    if bool(logits.max().isfinite()):  # NaN spreads to the maximum; minus infinity only rules a token out
        return logits
    where = _where(model, again, first) or (_BEHIND if whole else "where that begins does not show without the text before it")
    raise NotFiniteError(
        f"the logits of {type(model).__name__} are not finite (NaN or infinite): {where}; look at its weights (longreach doctor), or load "
        "it in float32 (--dtype float32) where numbers grow too large for float16"
    )


def _where(model: PreTrainedModel, again: Callable[[], object], first: int) -> str:
    """The first output that is not finite, of the embedding and the layers, in words; "" where all of them are."""
    hooks = [module.register_forward_hook(_look(words, first)) for module, words in _places(model)]
    try:
        with torch.no_grad():
            again()
    except _FoundError as found:
        return str(found)
    finally:
        for hook in hooks:
            hook.remove()
    return ""


def _places(model: PreTrainedModel) -> Iterator[tuple[nn.Module, str]]:
    """The modules that are looked at, in words."""
    embedding: Any = model.get_input_embeddings()
    yield embedding, "the embedding of tokens"
    for path, stack in model.named_modules():
        if isinstance(stack, nn.ModuleList) and not any(part.isdecimal() for part in path.split(".")):  # experts are no layers
            yield from ((layer, f"layer {index + 1} of {len(stack)} ({path}.{index})") for index, layer in enumerate(stack))


def _look(words: str, first: int) -> Callable[[nn.Module, Any, Any], None]:
    seen: Counter[str] = Counter()

    def look(module: nn.Module, args: Any, output: Any) -> None:
        hidden = output if isinstance(output, Tensor) else output[0]
        if not isinstance(hidden, Tensor) or hidden.ndim < 3:
            return  # not [B, T, D]
        sound = hidden.isfinite().flatten(2).all(-1).all(0)  # [T]
        if not bool(sound.all()):
            token = first + seen["tokens"] + int(sound.int().argmin()) + 1
            raise _FoundError(f"{words} is the first whose output is not, at token {token}")
        seen["tokens"] += len(sound)

    return look

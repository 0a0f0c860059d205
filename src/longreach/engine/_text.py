"""What methods that read the text are told of it: what each token stands for, and what they made of the tokens before."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.core.errors import LongreachError
from longreach.engine._stream import Stream

_TOKENIZER = "longreach_tokenizer"
Read = Callable[[tuple[int, ...] | None, str], tuple[int, ...]]  # (state before a token, its text) -> state after it


def remember_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """The model knows from now on what its ids stand for."""
    vars(model)[_TOKENIZER] = tokenizer


def tokenizer_of(model: PreTrainedModel) -> PreTrainedTokenizerBase | None:
    """The tokenizer that the model was loaded with, where that is known."""
    return vars(model).get(_TOKENIZER)


def given_ids(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The ids [B, T] that a forward pass was given."""
    ids: Tensor | None = kwargs.get("input_ids", args[0] if args else None)
    return ids


class Pieces:
    """id -> the text that it stands for inside a text; "" for special tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        # Some tokenizers leave out the space before the first word of a text.
        self._before: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
        self._prefix = self._decode(self._before)
        self._known: dict[int, str] = {}

    def __getitem__(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = self._decode([*self._before, token]).removeprefix(self._prefix)
        return self._known[token]

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class TextReader:
    """Follows the texts of a cache's rows, token by token. Args: pieces: of the model's tokenizer. read: of the method."""

    def __init__(self, pieces: Pieces, read: Read) -> None:
        self.pieces, self.read = pieces, read

    def blocks(self, stream: Stream, first: int, ids: Tensor | None) -> Tensor:
        """[B, T, 2]: number of the block and place in it of the new tokens `ids` [B, T], the first of which has the slot `first`.

        The state after each token is kept in the stream: texts go on where they stopped, also where tokens were taken back.
        """
        if ids is None:
            raise LongreachError("the method reads the text, and this forward pass has embeddings in its place; pass input_ids")
        size = len(self.read(None, ""))
        before = torch.zeros(1, first, size, dtype=torch.long) if stream.read is None else stream.read
        rows = []
        for row, tokens in enumerate(ids.tolist()):
            begin, old = stream.start[row], before[row if before.shape[0] > 1 else 0]
            real = [slot >= begin for slot in range(first, first + len(tokens))]
            if stream.valid is not None:
                real = stream.valid[row, first:].tolist()
            state = tuple(old[-1].tolist()) if begin < first else None
            states = []
            for token, is_text in zip(tokens, real, strict=True):
                state = self.read(state, self.pieces[token]) if is_text else state
                states.append(state or (0,) * size)
            rows.append(torch.cat([old, torch.tensor(states).view(-1, size)]))
        stream.read = torch.stack(rows)
        return stream.read[:, first:, :2].to(ids.device)


def split_tables(share: float, near: tuple[Tensor, Tensor], far: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """cos and sin [..., R/2]: `near` for that share of the pairs of dimensions, the first and fastest, and `far` for the rest."""
    fast = round(share * near[0].shape[-1])
    cos, sin = (torch.cat([a[..., :fast], b[..., fast:]], -1) for a, b in zip(near, far, strict=True))
    return cos, sin

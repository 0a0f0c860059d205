"""Prompts with parts that are read side by side: from text to ids, and from ids into a cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, PreTrainedTokenizerBase

from longreach.core.errors import InputError
from longreach.decoding.encoder import Encoder
from longreach.engine.sets import side_by_side


@dataclass(frozen=True)
class PartSet:
    """A set in the ids of a prompt. Args: start: place of its first token. lengths: of its parts, in tokens."""

    start: int
    lengths: tuple[int, ...]

    @property
    def saved(self) -> int:
        """Tokens that take no position of their own."""
        return sum(self.lengths) - max(self.lengths)


def set_ids(
    tokenizer: PreTrainedTokenizerBase, name: str, parts: Sequence[str | tuple[str, ...]], *, begins: bool
) -> tuple[Tensor, tuple[PartSet, ...]]:
    """The ids [1, T] of a text in parts, and its sets. The parts of a set stand in an order that is theirs, whatever order they come in.

    Args: name: of the method, for words. begins: put what the tokenizer puts before a text (BOS) before it.
    Raises: InputError for a text that ends with a set.
    """
    encoder = Encoder(tokenizer, special=True)
    if isinstance(parts[-1], tuple):
        raise InputError(f"{name}: the prompt ends with a set, and only what comes after one sees its parts; go on after it")
    ids, sets = list(encoder.prefix) if begins else [], []
    for number, part in enumerate(parts):
        encode = encoder.encode_inside if number else encoder.encode
        if isinstance(part, str):
            ids += encode(part)
        else:
            found = sorted(encode(each) for each in part)
            sets.append(PartSet(len(ids), tuple(map(len, found))))
            ids += [token for each in found for token in each]
    return torch.tensor([ids]), tuple(sets)


def read_sets(ids: Tensor, sets: Sequence[PartSet], cache: Cache, read: Callable[[Tensor], Tensor]) -> Tensor:
    """Read `ids` [1, T] with their sets into an empty cache of `engine.sets.cache_for_sets`: what `read` gives of the last part.

    Args: read: reads a part of the ids into the cache.
    """
    end = 0
    for each in sets:
        if each.start > end:
            read(ids[:, end : each.start])
        end = each.start
        with side_by_side(cache) as put_aside:
            for length in each.lengths:
                read(ids[:, end : end + length])
                put_aside()
                end += length
    return read(ids[:, end:])

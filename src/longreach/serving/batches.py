"""Rows of several requests side by side in one forward pass, left-padded, where caches are nothing but keys and values of tokens."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from longreach.decoding.reading import prefill
from longreach.engine.cache_argument import cache_argument
from longreach.engine.forward import apart, rounding
from longreach.engine.rows import stack_rows, take_row
from longreach.engine.stock import keeps_all, keeps_window
from longreach.engine.whole_length import whole_length
from longreach.serving.profiles import Profile
from longreach.serving.texts import OpenText

_MOST = 64  # rows of a batch
_NEAR = 64  # tokens by which rows may always differ; beyond, the longest has at most twice as many as the shortest
_PROBES = ((3, 9), (5, 4))  # (ids from, tokens) of two rows that are read side by side and alone


class RowBatch:
    """Texts that are written side by side. From here on it holds what their caches held.

    Args: texts: of one profile, under the same frequencies, each with a cache; at least two.
    """

    def __init__(self, texts: Sequence[OpenText]) -> None:
        self.texts = list(texts)
        self._profile, self._whole = texts[0].job.profile, texts[0].whole
        self._rows = _SideBySide(self._profile, [text.cache for text in texts if text.cache is not None])
        for text in texts:
            text.cache = None

    def step(self) -> Tensor:
        """Read the last token of each text: the logits [B, V] of the next ones."""
        tokens = torch.tensor([[text.written[-1]] for text in self.texts], device=self._profile.model.device)
        with whole_length(self._profile.model, self._whole):
            logits = self._rows.step(tokens)
        for text in self.texts:
            text.fed += 1
        return logits

    def give_back(self) -> None:
        """Each text gets a cache of its own again."""
        for row, text in enumerate(self.texts):
            text.cache = self._rows.alone(row)


class _SideBySide:
    """Caches of one row each, as one."""

    def __init__(self, profile: Profile, caches: Sequence[Cache]) -> None:
        self._profile, self._cache = profile, profile.empty()
        self._padding = stack_rows(self._cache, caches)
        width = int(self._cache.get_seq_length())
        padding = torch.tensor(self._padding, device=profile.model.device)[:, None]
        self._lengths = width - padding
        self._mask = (torch.arange(width, device=padding.device) >= padding).long()  # [B, S]

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """Read [B, 1] tokens: logits [B, V]."""
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], 1)
        padded: dict[str, Any] = {"attention_mask": self._mask} if any(self._padding) else {}
        model: Any = self._profile.model
        held = cache_argument(model, self._cache)
        out = model(tokens, **held, **padded, position_ids=self._lengths, use_cache=True, logits_to_keep=1)
        self._lengths = self._lengths + 1
        logits: Tensor = out.logits[:, -1]
        return logits

    def alone(self, row: int) -> Cache:
        """A cache of what one row holds."""
        cache = self._profile.empty()
        take_row(cache, self._cache, row, self._padding[row])
        return cache


def grouped(texts: Sequence[OpenText]) -> list[list[OpenText]]:
    """Texts that may be written side by side, of lengths that lie near to each other, so that little of a batch is padding."""
    kinds: dict[Any, list[OpenText]] = {}
    for text in texts:
        kinds.setdefault((id(text.job.profile), text.alike), []).append(text)
    groups: list[list[OpenText]] = []
    for alike in kinds.values():
        group: list[OpenText] = []
        for text in sorted(alike, key=lambda text: text.length):
            if group and (text.length > 2 * group[0].length + _NEAR or len(group) == _MOST):
                groups.append(group)
                group = []
            group.append(text)
        groups.append(group)
    return groups


def can_stand_side_by_side(profile: Profile) -> bool:
    """Whether rows of the profile get the logits in a batch that they get alone, up to rounding. Two of them are tried.

    They are shorter than sliding windows are. So a model with windows has to take transformers' own masks, which count slots of the cache;
    those of chunked attention do not.
    """
    taken = inspect.signature(profile.model.forward).parameters
    if not profile.stacks or not {"attention_mask", "position_ids"} <= taken.keys():
        return False
    config = profile.model.config.get_text_config()
    if any(map(keeps_window, profile.empty().layers)) and (
        getattr(config, "attention_chunk_size", None) is not None or not profile.model._supports_attention_backend
    ):
        return False
    rows = [torch.arange(start, start + count, device=profile.model.device) % config.vocab_size for start, count in _PROBES]
    caches = [profile.empty() for _ in rows]
    for ids, cache in zip(rows, caches, strict=True):
        prefill(profile.model, ids[None], cache=cache)
    tokens = torch.tensor([[1], [2]], device=profile.model.device)
    together = _SideBySide(profile, caches).step(tokens)
    alone = torch.cat([prefill(profile.model, token[None], cache=cache) for token, cache in zip(tokens, caches, strict=True)])
    return bool(apart(together, alone) <= rounding(profile.model))


def own_tensors(cache: Cache) -> None:
    """What the layers of transformers hold is copied where it is a part of something larger, which would stay in memory with it."""
    layers: list[Any] = [layer for layer in cache.layers if keeps_all(layer)]
    for layer in layers:
        layer.keys, layer.values = (
            each.clone() if each.untyped_storage().nbytes() > each.nbytes else each for each in (layer.keys, layer.values)
        )

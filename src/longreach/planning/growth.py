"""How much room buffers have once a text is read: the engine's own buffers, grown as reading grows them, with nothing in them."""

from functools import lru_cache

import torch

from longreach.engine._channels import Channels
from longreach.engine._pages import Pages

_PASSES = 512  # at most, for texts longer than that many chunks
_BLOCKS = 4096  # written one by one at most; of more, several at a time


@lru_cache(maxsize=4096)
def room_in_channels(live: int, tokens: int, chunk: int, after: int, new: int, *, grows: bool) -> tuple[int, int]:
    """Tokens that there is room for once a prompt of `tokens` was read, and after `new` more.

    Args: live: tokens held at the prompt's end. chunk: tokens a forward. after: tokens held after the new ones. grows: none of
    those is dropped.
    """
    channels, last = Channels(), tokens - (tokens - 1) // chunk * chunk
    for begin, size in _passes(tokens, chunk):
        if size == last and begin + size == tokens:
            channels.keep_last(max(0, live - size))
        else:
            channels.keep_last(max(0, live - last, live - tokens + begin))
        channels.append({0: torch.empty(1, 1, size, 1, dtype=torch.int8, device="meta")})
    read = _room(channels)
    one = torch.empty(1, 1, 1, 1, dtype=torch.int8, device="meta")
    for number in range(new):
        channels.keep_last(max(0, after - new + number if grows else after - 1))
        channels.append({0: one})
    return read, _room(channels)


@lru_cache(maxsize=4096)
def room_in_pages(first: int, filled: int) -> int:
    """Blocks that there is room for once `filled` were written: `first` at once, and the others one by one."""
    pages, step = Pages.empty("device"), -(-filled // _BLOCKS)
    for due in (first, *[step] * ((filled - first) // step), (filled - first) % step) if filled else ():
        if due:
            pages = pages.appended({"": torch.empty(due, 1, dtype=torch.int8, device="meta")})
    return pages.buffer.capacity if len(pages) else 0


def _passes(tokens: int, chunk: int) -> list[tuple[int, int]]:
    """(first token, tokens) of each forward; of very long texts, fewer and longer ones."""
    step = chunk * -(-tokens // (chunk * _PASSES))
    return [(begin, min(step, tokens - begin)) for begin in range(0, tokens, step)]


def _room(channels: Channels) -> int:
    return next((int(tensor.shape[2]) for tensor in channels.data.values()), 0)

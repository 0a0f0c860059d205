"""What was read of prompts, kept in memory for those that begin alike: the least recently used goes first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import Cache

from longreach.core.errors import LongreachError
from longreach.engine.snapshots import Snapshot, restore
from longreach.serving.profiles import Profile

Ids = npt.NDArray[np.int64]
_LEAST = 16  # tokens that are worth going on from


@dataclass(frozen=True, eq=False)
class _Kept:
    """A text that was read. Args: alike: the frequencies that it was read under, where they hang on its length. size: bytes."""

    ids: Ids
    profile: Profile
    alike: tuple[bool, ...]
    taken: Snapshot
    size: int


class PrefixStore:
    """Snapshots of caches, by the ids that they hold.

    Args: most_bytes: of all snapshots together; 0 keeps none.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self._kept: list[_Kept] = []  # the least recently used first

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, profile: Profile, alike: tuple[bool, ...], ids: Sequence[int]) -> tuple[int, Cache]:
        """How many of the first ids need not be read, and a cache that holds just them. The last id is always read.

        A cache that can be cut back is, to where texts part; any other one serves where the whole of it is the beginning.
        """
        cache = profile.empty()
        wanted = np.asarray(ids[:-1], dtype=np.int64)
        best, most = None, _LEAST - 1
        for each in self._kept:
            if each.profile is not profile or each.alike != alike:
                continue
            common = _common(each.ids, wanted)
            if common > most and (profile.crops or common == len(each.ids)):
                best, most = each, common
        if best is None:
            return 0, cache
        self._kept.remove(best)
        self._kept.append(best)
        restore(cache, best.taken)
        if most < len(best.ids) and not _cropped(cache, len(best.ids) - most):
            return 0, profile.empty()
        return most, cache

    def keep(self, profile: Profile, alike: tuple[bool, ...], ids: Sequence[int], taken: Snapshot) -> None:
        """Keep what a cache held, in place of what it makes needless, and let go of what there is no room for."""
        size, text = taken.nbytes, np.asarray(ids, dtype=np.int64)
        if size > self.most_bytes or not profile.reuses:
            return
        for each in [each for each in self._kept if each.profile is profile and each.alike == alike]:
            common = _common(each.ids, text)
            if common == len(text) and (profile.crops or common == len(each.ids)):
                return  # another holds it
            if profile.crops and common == len(each.ids):
                self._drop(each)
        self._kept.append(_Kept(text, profile, alike, taken, size))
        self.bytes += size
        while self.bytes > self.most_bytes:
            self._drop(self._kept[0])

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()
        self.bytes = 0

    def _drop(self, kept: _Kept) -> None:
        self._kept.remove(kept)
        self.bytes -= kept.size


def _cropped(cache: Cache, count: int) -> bool:
    """Take back the last tokens. Where it cannot be done, the cache is good for nothing."""
    try:
        cache.crop(-count)
    except (LongreachError, RuntimeError):  # of the engine, and of transformers
        return False
    return True


def _common(one: Ids, other: Ids) -> int:
    """How many tokens two texts begin with in common."""
    size = min(len(one), len(other))
    apart = one[:size] != other[:size]
    return int(apart.argmax()) if size and apart.any() else size

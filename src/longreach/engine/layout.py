"""Where the real tokens of a padded batch stand in rows that have no padding between texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Rows = Callable[[Sequence[int]], Sequence[Sequence[int]]]  # lengths of texts -> the numbers of the texts in each row


class Segment(NamedTuple):
    """Where a text stands. Args: row, start: of its first token. length: in tokens. text, first: its row in the batch, and place there."""

    row: int
    start: int
    length: int
    text: int
    first: int


@dataclass(frozen=True, eq=False)
class Layout:
    """Args: shape: (B, T) of the batch. size: (R, L) of the rows. segments: where texts stand; those of one length that share a row are
    neighbours. tokens [N]: the place of each real token in the flattened batch. slots [N]: its place in the flattened rows. source [R, L]:
    the place in the flattened batch that fills each slot; behind the last text of a row anything does.
    """

    shape: tuple[int, int]
    size: tuple[int, int]
    segments: tuple[Segment, ...]
    tokens: Tensor
    slots: Tensor
    source: Tensor

    @classmethod
    def of(cls, mask: Tensor, rows: Rows) -> "Layout":
        """The layout of a batch with the attention mask [B, T] (bool), whose rows have padding on the left, the right or both."""
        lengths = mask.sum(1).tolist()
        firsts = mask.int().argmax(1).tolist()
        texts = [text for text, length in enumerate(lengths) if length]
        packed = [[texts[each] for each in row] for row in rows([lengths[text] for text in texts])]
        segments, tokens, width = [], [], mask.shape[1]
        for number, row in enumerate(packed):
            start = 0
            for text in sorted(row, key=lambda text: lengths[text]):
                segments.append(Segment(number, start, lengths[text], text, firsts[text]))
                tokens.append(torch.arange(lengths[text]) + text * width + firsts[text])
                start += lengths[text]
        longest = max((each.start + each.length for each in segments), default=0)
        found = torch.cat([torch.empty(0, dtype=torch.long), *tokens])
        slots = torch.cat([torch.empty(0, dtype=torch.long), *(torch.arange(n) + row * longest + start for row, start, n, *_ in segments)])
        source = torch.zeros(len(packed) * longest, dtype=torch.long)
        source[slots] = found
        placed = [each.to(mask.device) for each in (found, slots, source.view(len(packed), longest))]
        return cls((mask.shape[0], width), (len(packed), longest), tuple(segments), *placed)

    def pack(self, x: Tensor) -> Tensor:
        """[B, T, ...] -> [R, L, ...]."""
        return x.flatten(0, 1)[self.source.to(x.device)]

    def unpack(self, x: Tensor) -> Tensor:
        """[R, L, ...] -> [B, T, ...], zeros at padding."""
        return self.spread(x.flatten(0, 1)[self.slots.to(x.device)])

    def real(self, x: Tensor) -> Tensor:
        """[B, T, ...] -> the real tokens [N, ...]."""
        return x.flatten(0, 1)[self.tokens.to(x.device)]

    def spread(self, x: Tensor) -> Tensor:
        """The real tokens [N, ...] -> [B, T, ...], zeros at padding."""
        batch, width = self.shape
        found = x.new_zeros(batch * width, *x.shape[1:])
        return found.index_copy_(0, self.tokens.to(x.device), x).unflatten(0, self.shape)

    def unpack_heads(self, x: Tensor) -> Tensor:
        """[R, K, L, D] -> [B, K, T, D], zeros at padding."""
        found = x.new_zeros(self.shape[0], x.shape[1], self.shape[1], x.shape[3])
        for row, start, length, text, first in self.segments:
            found[text, :, first : first + length] = x[row, :, start : start + length]
        return found

    def by_length(self) -> dict[int, list[Segment]]:
        """The segments of each length."""
        found: dict[int, list[Segment]] = {}
        for each in self.segments:
            found.setdefault(each.length, []).append(each)
        return found

    def each_text(self, attend: Callable[[Tensor, Tensor, Tensor, int], Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of each text within itself: q [R, H, L, D], k and v [R, K, L, D] -> [R, L, H, D], zeros behind the last text of a row.

        attend: (q [n, H, T, D], k and v [n, K, T, D], T) -> [n, T, H, D], of texts that have one length.
        """
        found: dict[Segment, Tensor] = {}
        for length, segments in self.by_length().items():
            out = attend(_taken(q, segments), _taken(k, segments), _taken(v, segments), length)
            found.update(zip(segments, out.unbind(0), strict=True))
        rows = []
        for row in range(self.size[0]):
            parts = [found[each] for each in self.segments if each.row == row]
            missing = self.size[1] - sum(map(len, parts))
            rows.append(torch.cat([*parts, parts[0].new_zeros(missing, *parts[0].shape[1:])] if missing else parts))
        return torch.stack(rows) if len(rows) > 1 else rows[0][None]


def _taken(x: Tensor, segments: Sequence[Segment]) -> Tensor:
    """Segments of one length of x [R, H, L, D], as [n, H, length, D]; a view where they are neighbours."""
    row, start, length, *_ = segments[0]
    if all((each.row, each.start) == (row, start + place * length) for place, each in enumerate(segments)):
        part = x[row, :, start : start + len(segments) * length]
        return part.unflatten(1, (len(segments), length)).transpose(0, 1)
    return torch.stack([x[row, :, start : start + length] for row, start, length, *_ in segments])

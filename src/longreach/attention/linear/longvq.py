"""LongVQ: keys are replaced by the nearest of a few learned ones, so that of what is far away a query reads a sum for each of these.

Paper: LongVQ: Long Sequence Modeling with Vector Quantization on Structured Memory, 2024, arXiv:2404.11163
Cost: a query reads 2 window_size keys at most and num_codes codes, and its key is compared with num_codes codes; the cache of the whole
text. Weights of its own (longreach.equip): codes, which follow keys in training, a bias by distance, and how fast keys fade.
Limits: a model has to be trained under it. Far keys of one code cannot be told apart, not even by distance.
Differs from the paper: of it the abstract and reviews alone could be had. Attention over quantised keys is that of Transformer-VQ
(arXiv:2309.16354) and its official code: queries and keys of one length, codes that are running averages of their keys, no gradient to
keys from beyond the block before the query's. Of the structured memory there is one average for each dimension of the keys, from which
channels forget at learned rates, and none for queries; there are no gates, for a policy does not see what a layer is given. The bias is a
learned number for each distance below window_size. Codes that hardly any key is nearest to move to keys; no loss draws keys to their codes.
A model's own scale and soft cap of logits have no part.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, one_hot, pad

from longreach.attention.base import Follows, Places, Vectors
from longreach.attention.sparse._rows import at_once
from longreach.core.bands import Computed, Constant, LayerContext, QueryRun
from longreach.core.errors import SpecError
from longreach.core.memory import View
from longreach.core.method import Claim, MethodInfo, at_least

_EPSILON = 1e-6  # of the variance
_DEAD = 0.01  # share of the keys of an average code, below which a code moves
_REVIVED = 0.1  # and the share that it then counts as


@dataclass(frozen=True, kw_only=True)
class LongVq(Places, Follows):
    """Args: num_codes: of each key-value head (>= 1; Transformer-VQ: 512). window_size: tokens a block (>= 1; Transformer-VQ: 512): a query
    reads its block and the one before token by token, and keys that are nearer than a block have a bias. decay: share of a code's weight
    that a step of training leaves (0 to 1).
    """

    info: ClassVar = MethodInfo(
        title="LongVQ: Long Sequence Modeling with Vector Quantization on Structured Memory",
        paper="arXiv:2404.11163",
        training_free=False,
        claims=(
            Claim(
                text="significant improvements over other sequence models, variants of Transformers among them",
                metric="costs_inside_above_full",
                condition="trained",
                at_most=0.0,
            ),
            Claim(
                text="dynamic global and local patterns, which complement the lack of long-range dependencies",
                metric="costs_inside_above_local",
                condition="trained",
                at_most=0.0,
            ),
        ),
    )
    num_codes: int = 512
    window_size: int = 512
    decay: float = 0.99

    def __post_init__(self) -> None:
        at_least(self, 1, "num_codes", "window_size")
        if not 0 <= self.decay < 1:
            raise SpecError(f"longvq: decay={self.decay:g} must be at least 0 and below 1")

    def weights(self, layer: LayerContext) -> dict[str, Tensor]:
        """`bias` [H, window_size] by distance; `rate` [K, D], whose sigmoid is what a token leaves of the keys before it; `codebook`
        [K, C, D], how many keys each code stands for, `mass` [K, C], and what a step has read so far: `sums` [K, C, D] and `counts` [K, C]
        of the keys nearest to each, and some of its keys, `spare` [K, C, D].
        """
        shape = layer.num_kv_heads, self.num_codes, layer.head_dim
        codes = layer_norm(torch.randn(shape), shape[2:])
        return {
            "bias": torch.randn(layer.num_heads, self.window_size) * 0.02,
            "rate": torch.linspace(-4, 2, layer.head_dim).repeat(shape[0], 1),  # from hardly any to seven eighths
            "codebook": codes, "mass": torch.zeros(shape[:2]), "sums": torch.zeros(shape), "counts": torch.zeros(shape[:2]),
            "spare": torch.zeros(shape),
        }  # fmt: skip

    @torch.no_grad()
    def follow(self, layer: LayerContext) -> None:
        """Codes move to the running average of what is nearest to them; those that stand for next to nothing, to keys of this step."""
        codes, mass, sums, counts, spare = (layer.weights[f"longvq.{name}"] for name in ("codebook", "mass", "sums", "counts", "spare"))
        if not counts.any():
            return
        kept, new = self.decay * mass, (1 - self.decay) * counts
        total = kept + new
        moved = (kept[..., None] * codes + (1 - self.decay) * sums) / total.clamp(min=torch.finfo(mass.dtype).tiny)[..., None]
        codes.copy_(torch.where(counts[..., None] > 0, moved, codes))
        average = total.mean(-1, keepdim=True)
        dead = total < _DEAD * average
        codes.copy_(torch.where(dead[..., None], spare, codes))
        mass.copy_(torch.where(dead, _REVIVED * average, total))
        for spent in (sums, counts, spare):
            spent.zero_()

    def bands(self, layer: LayerContext) -> tuple[View, ...]:
        """All keys, without positions."""
        return (Computed(_Quantised(self, layer), positions=Constant(0), normalised=True),)

    def keys_read(self, i: Tensor) -> Tensor:
        """Tokens of two blocks; codes for a query, where there is something before these, and for a key."""
        own = i // self.window_size
        return i + 1 - (own - 1).clamp(min=0) * self.window_size + ((own > 1) + 1) * self.num_codes

    def masses(self, i: Tensor, j: Tensor, vectors: Vectors) -> Tensor:
        """Softmax over quantised keys, with the bias."""
        padding = int((j < 0).sum())
        q, k = vectors.q[:, padding:], vectors.k[:, padding:]
        weights, repeats = vectors.layer.weights, len(q) // vectors.layer.num_kv_heads
        left = weights["longvq.rate"].double().sigmoid().repeat_interleave(repeats, 0)
        codes = weights["longvq.codebook"].detach().double().repeat_interleave(repeats, 0)
        faded = [k[:, 0]]
        for key in range(1, k.shape[1]):
            faded.append(left * faded[-1] + k[:, key])
        q, k = ((x - x.mean(-1, True)) / (x.var(-1, correction=0, keepdim=True) + _EPSILON).sqrt() for x in (q, torch.stack(faded, 1)))
        nearest = (k[:, :, None] - codes[:, None]).square().sum(-1).argmin(-1)
        coded = torch.stack([own[chosen] for own, chosen in zip(codes, nearest, strict=True)])
        index = torch.arange(k.shape[1])
        apart = index[:, None] - index
        blocks = index[:, None] // self.window_size - index // self.window_size
        logits = torch.where(blocks <= 1, q @ (coded + k - k.detach()).mT, q @ coded.mT) * q.shape[-1] ** -0.5
        bias = weights["longvq.bias"].double()[:, apart.clamp(0, self.window_size - 1)]
        logits = logits + torch.where((apart >= 0) & (apart < self.window_size), bias, 0.0)
        return pad(logits.exp(), (padding, 0, padding, 0))


@dataclass(frozen=True, kw_only=True)
class _Past:
    """What is known of the tokens read so far. It hangs on them alone, down to the last digit, and not on the runs that they came in.

    Args: tokens: how many. faded: the key before the block that the next token lies in, [B, K, D].
    blocks: of those that lie so far back that they are summed up: `counts` [B, K, C], `sums` of values [B, K, C, V].
    codes, near: of the tokens after these, [B, K, n], and their quantised keys [B, K, n, D].
    """

    tokens: int
    faded: Tensor
    blocks: int
    counts: Tensor
    sums: Tensor
    codes: Tensor
    near: Tensor


@dataclass(frozen=True)
class _Quantised:
    """Reads quantised keys."""

    policy: LongVq
    layer: LayerContext

    def pieces(self, run: QueryRun) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """So many blocks of queries at a time."""
        width, count, end = self.policy.window_size, run.q.shape[2], run.keys.shape[2]
        past: _Past = run.memo.get("longvq") or self._beginning(run)
        block, last, together = run.first // width, (end - 1) // width, self._together(run)
        while past.blocks < block - 1:  # what was read is not known any more
            upto = min(past.blocks + together, block - 1)
            past = self._read_on(run, past, upto * width)
            past = self._fold(past, *self._summed(run, past, upto - past.blocks), upto)
        for begin in range(block, last + 1, together):
            upto = min(begin + together, last + 1)
            rows = slice(max(begin * width - run.first, 0), min(upto * width - run.first, count))
            with torch.autocast(run.q.device.type, enabled=False):
                past = self._read_on(run, past, min(upto * width, end))
                out, lse, past = self._attend(run, past, rows, begin, upto)
            yield rows, out.to(run.values.dtype), lse
        run.memo["longvq"] = past

    def _together(self, run: QueryRun) -> int:
        """Blocks at once."""
        codes, width, (b, heads, _, d) = self.policy.num_codes, self.policy.window_size, run.q.shape
        return at_once(b * (heads * width * (2 * width + codes) + run.keys.shape[1] * codes * (width + d)))

    def _beginning(self, run: QueryRun) -> _Past:
        """Nothing is read."""
        (b, groups, _, d), codes, exact = run.keys.shape, self.policy.num_codes, torch.promote_types(run.q.dtype, torch.float32)
        new = run.keys.new_zeros
        return _Past(
            tokens=0, faded=new(b, groups, d, dtype=exact), blocks=0, counts=new(b, groups, codes, dtype=exact),
            sums=new(b, groups, codes, run.values.shape[3], dtype=exact), codes=new(b, groups, 0, dtype=torch.long),
            near=new(b, groups, 0, d, dtype=exact),
        )  # fmt: skip

    def _read_on(self, run: QueryRun, past: _Past, end: int) -> _Past:
        """With the tokens up to `end`."""
        book = self.layer.weights["longvq.codebook"].detach().to(past.near.dtype)
        width, place = self.policy.window_size, past.tokens % self.policy.window_size
        left = self.layer.weights["longvq.rate"].to(book.dtype).sigmoid()
        keys, ends = _faded(run.keys[:, :, past.tokens - place : end].to(book.dtype), left, past.faded, width)
        keys = _normalised(keys[:, :, place:])
        with torch.no_grad():
            codes = (keys @ book.mT - book.square().sum(-1)[:, None] / 2).argmax(-1)
            coded = torch.stack([_rows(book, each) for each in codes])
        if run.training:
            fresh = slice(max(0, run.first - past.tokens), None)
            self._note(keys[:, :, fresh], codes[:, :, fresh])
        # Its value is the code, its gradient the key's.
        near = coded + (keys - keys.detach()) if keys.requires_grad else coded
        near, codes = torch.cat([past.near, near], 2), torch.cat([past.codes, codes], 2)
        return replace(past, tokens=end, faded=ends[end // width - past.tokens // width], codes=codes, near=near)

    def _summed(self, run: QueryRun, past: _Past, blocks: int) -> tuple[Tensor, Tensor]:
        """The counts [B, K, n + 1, C] and sums [B, K, n + 1, C, V] before each of the first n blocks not summed up, and after them."""
        width, begin = self.policy.window_size, past.blocks * self.policy.window_size
        counts, sums = [past.counts], [past.sums]
        for block in range(blocks):
            tokens = slice(block * width, block * width + width)
            member = one_hot(past.codes[:, :, tokens], self.policy.num_codes).to(past.sums.dtype)
            values = run.values[:, :, begin + tokens.start : begin + tokens.stop].to(member.dtype)
            counts.append(counts[-1] + member.sum(2))
            sums.append(sums[-1] + member.mT @ values)
        return torch.stack(counts, 2), torch.stack(sums, 2)

    def _fold(self, past: _Past, counts: Tensor, sums: Tensor, blocks: int) -> _Past:
        """With so many blocks summed up, of `_summed`."""
        more = blocks - past.blocks
        gone = more * self.policy.window_size
        return replace(
            past,
            blocks=blocks,
            counts=counts[:, :, more],
            sums=sums[:, :, more],
            codes=past.codes[:, :, gone:],
            near=past.near[:, :, gone:],
        )

    def _attend(self, run: QueryRun, past: _Past, rows: slice, begin: int, upto: int) -> tuple[Tensor, Tensor, _Past]:
        """Output and log-sum-exp of the queries `rows`, which lie in the blocks [begin, upto), and what is known after them."""
        width, blocks, exact = self.policy.window_size, upto - begin, past.near.dtype
        groups, left = run.keys.shape[1], run.first + rows.start - begin * width
        # The first block has none before it: it gets one that is empty, and so does the summed past.
        empty, known = int(begin == 0), max(past.tokens // width - 1, 0)
        counts, sums = self._summed(run, past, max(blocks - 1 - empty, known - past.blocks, 0))
        after = self._fold(past, counts, sums, known)
        counts, sums = (torch.cat([x[:, :, :1]] * empty + [x], 2)[:, :, None, :blocks] for x in (counts, sums))
        lie = (empty * width, upto * width - past.tokens)
        values = run.values[:, :, past.blocks * width : past.tokens].to(exact)
        near, values = (pad(x, (0, 0, *lie)).unflatten(2, (-1, width)) for x in (past.near, values))
        near, values = (torch.cat([x[:, :, :-1], x[:, :, 1:]], 3)[:, :, None] for x in (near, values))
        q = _normalised(run.q[:, :, rows].to(exact)).unflatten(1, (groups, -1))
        count, first = q.shape[3], left
        if blocks > 1:
            q, first = pad(q, (0, 0, left, blocks * width - left - count)), 0
        q = q.unflatten(3, (blocks, -1)) * q.shape[-1] ** -0.5  # [B, K, H / K, blocks, n, D]
        place = torch.arange(first, first + q.shape[4], device=q.device)[:, None]
        apart = place + width - torch.arange(2 * width, device=q.device)
        bias = pad(self.layer.weights["longvq.bias"].to(exact), (0, width))[:, apart.clamp(0, 2 * width - 1)]
        absent = torch.arange(begin, upto, device=q.device)[:, None, None] * width + place - apart < 0
        logits = q @ near.mT + bias.unflatten(0, (groups, -1))[:, :, None]
        book = self.layer.weights["longvq.codebook"].detach().to(exact)[:, None, None]
        logits = torch.cat([logits.masked_fill((apart < 0) | absent, -torch.inf), q @ book.mT + counts.log()[..., None, :]], -1)
        lse = logits.logsumexp(-1)
        shares = (logits - lse[..., None]).exp()
        out = shares[..., : 2 * width] @ values + shares[..., 2 * width :] @ (sums / counts.clamp(min=1)[..., None])
        own = slice(left - first, left - first + count)
        return out.flatten(3, 4)[:, :, :, own].flatten(1, 2), lse.flatten(3, 4)[:, :, :, own].flatten(1, 2), after

    @torch.no_grad()
    def _note(self, keys: Tensor, codes: Tensor) -> None:
        """Add keys [B, K, n, D] to what the step has read of their codes [B, K, n]."""
        sums, counts, spare = (self.layer.weights[f"longvq.{name}"] for name in ("sums", "counts", "spare"))
        if not codes.shape[2]:
            return
        member = one_hot(codes, self.policy.num_codes).to(keys.dtype)
        sums.add_(torch.einsum("bknc,bknd->kcd", member, keys).to(sums.dtype))
        counts.add_(member.sum((0, 2)).to(counts.dtype))
        each = keys.transpose(0, 1).flatten(1, 2)
        spare.copy_(each[:, torch.linspace(0, each.shape[1] - 1, spare.shape[1], device=each.device).long()])


def _faded(x: Tensor, left: Tensor, before: Tensor, width: int) -> tuple[Tensor, list[Tensor]]:
    """x [B, K, n, D] with what is left of all before, y_t = x_t + left y_(t - 1), left [K, D], and what is before each block of `width`
    and after the last full one, [B, K, D] each, of which `before` is the first.
    """
    blocks, count, reach = -(-x.shape[2] // width), x.shape[2], 1
    y = pad(x, (0, 0, 0, blocks * width - count)).unflatten(2, (blocks, width))
    while reach < width:  # y is over `reach` tokens of its block, and then over twice as many
        y = y + pad((left**reach)[:, None, None] * y[:, :, :, :-reach], (0, 0, reach, 0))
        reach *= 2
    powers, ends = left[:, None] ** torch.arange(1, width + 1, device=x.device)[:, None], [before]
    for block in range(count // width):
        ends.append(y[:, :, block, -1] + powers[:, -1] * ends[-1])
    y = y + powers[:, None] * torch.stack(ends[:blocks], 2)[:, :, :, None]
    return y.flatten(2, 3)[:, :, :count], ends


def _normalised(x: Tensor) -> Tensor:
    """x [..., D] with mean 0 and variance 1."""
    return layer_norm(x, x.shape[-1:], eps=_EPSILON)


def _rows(book: Tensor, codes: Tensor) -> Tensor:
    """The codes [K, n] of a book [K, C, D], [K, n, D]."""
    return torch.stack([own[chosen] for own, chosen in zip(book, codes, strict=True)])


METHOD = LongVq
EXAMPLES = (
    LongVq(num_codes=6, window_size=7),
    LongVq(num_codes=2, window_size=1),
    LongVq(num_codes=3, window_size=20, decay=0.5),
)
NEUTRAL = ()
BAD = ({"num_codes": 0}, {"window_size": 0}, {"decay": 1.0}, {"decay": -0.1})

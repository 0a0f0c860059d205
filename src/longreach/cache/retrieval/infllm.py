"""InfLLM: all of the text in blocks outside the device; every query sees the first block, those that it finds, and a local window.

Paper: InfLLM: Unveiling the Intrinsic Capacity of LLMs for Understanding Extremely Long Sequences with Training-Free Memory, 2024,
arXiv:2402.04617
Cost: attention weights are computed once more, to choose what represents a block; blocks are loaded when they are needed.
Limits: any length, within local_window + block_size trained positions; blocks have no order among themselves, and what is found hangs on
a few keys a block.
Differs from the paper: no query looks ahead: those of a prompt that share what they find (`shared`) find it by as many queries before
them, where the paper takes their own; the last ones of a prompt, and what follows, find their blocks one by one. The local window ends
where a block does, and so is up to a block longer. The first block stands for the initial tokens. What represents a block is chosen by the
attention that its tokens got (as in the official code), for each key-value head and not for each query head.
"""

from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor

from longreach.cache.base import CachePolicy
from longreach.core.bands import Band, Constant, LayerContext
from longreach.core.errors import SpecError
from longreach.core.memory import Blocks, Storage, View
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.core.ranking import coarse, highest, ranking
from longreach.core.sight import History, Sight


@dataclass(frozen=True, kw_only=True)
class InfLLM(CachePolicy):
    """Args: block_size: tokens a block (paper: 128). num_blocks: that a query finds (paper: 16 to 96). local_window: nearest tokens, seen
    whole at true distances (paper: 4096 of a window of 8192). num_representatives: keys that stand for a block (paper: 4). shared: queries
    of a prompt that share what they find (paper: 512), a multiple of block_size, or 1. storage: where the blocks lie: device, host, or disk
    (a temporary file, mapped into memory; in the folder that TMPDIR names).
    """

    info: ClassVar = MethodInfo(
        title="InfLLM: Unveiling the Intrinsic Capacity of LLMs for Understanding Extremely Long Sequences with Training-Free Memory",
        paper="arXiv:2402.04617",
        changes_positions=True,
        claims=(Claim(text="passkeys are found in 1,024K tokens (Llama-3, window of 8k)", metric="retrieval", at_least=0.85),),
    )
    block_size: int
    num_blocks: int
    local_window: int
    num_representatives: int = 4
    shared: int = 1
    storage: Storage = "host"

    def __post_init__(self) -> None:
        at_least(self, 1, "block_size", "num_blocks", "local_window", "num_representatives", "shared")
        if self.shared > 1 and self.shared % self.block_size:
            raise SpecError(f"infllm: shared={self.shared} must be 1 or a multiple of block_size={self.block_size}")
        if self.storage not in get_args(Storage):
            raise SpecError(f"infllm: storage={self.storage} must be device, host or disk")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["InfLLM", ...]:
        """Half of the window for local tokens, as in the paper, and a quarter of it in blocks of at most the paper's 128 tokens."""
        size = min(128, max(1, trained_window // 16))
        local, found = max(1, trained_window // 2), max(1, trained_window // (4 * size))
        return (cls(block_size=size, num_blocks=found, local_window=local, num_representatives=min(4, size)),)

    @property
    def _near(self) -> int:
        """Blocks of the local window."""
        return -(-self.local_window // self.block_size)

    @property
    def _far(self) -> int:
        """The distance at which blocks stand."""
        return self._near * self.block_size

    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """The blocks, all at one distance, and the local window."""
        blocks = Blocks(
            chooser=self, chunk=self.block_size, near=self._near, queries=Constant(self._far), keys=Constant(0), storage=self.storage,
            loaded=2 * self.num_blocks, shared=self.shared, signals=("received",),
        )  # fmt: skip
        return (blocks, Band())

    def represent(self, keys: Tensor, received: Tensor | None) -> Tensor:
        """The mean of the keys that got the most attention."""
        assert received is not None  # noqa: S101 - the store asks for it
        index = torch.arange(keys.shape[2], device=keys.device).expand(received.shape)
        best = highest(received, index, min(self.num_representatives, keys.shape[2]))
        wide = keys.to(torch.promote_types(keys.dtype, torch.float32))  # once, and not for every query that looks for it
        return (wide * best[..., None]).sum(2) / best.sum(2, keepdim=True)

    def select(self, q: Tensor, representatives: Tensor) -> Tensor:
        """The first block, and those with the largest products with the query, over all heads; of equal ones the later."""
        b, h, t, d = q.shape
        k, n = representatives.shape[1:3]
        summed = q.reshape(b, k, h // k, t, d).sum(2).to(representatives.dtype)
        scores = torch.einsum("bktd,bknd->btn", summed, representatives)
        scores[..., 0] = float("inf")
        index = torch.arange(n, device=q.device).expand(scores.shape)
        return ranking(scores, index).topk(min(self.num_blocks + 1, n), dim=-1).indices[:, None]

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The farthest that a key can stand: blocks at one distance, the local window up to a block farther."""
        near = i // self.block_size - j // self.block_size <= self._near
        return torch.where(near, i - j, torch.full_like(i - j, self._far)), j <= i

    def sight(self, i: int, history: History) -> Sight:
        """Block by block, for one query."""
        size, near = self.block_size, self._near
        begin, asking = i // self.shared * self.shared, [i]
        if self.shared > 1 and 0 < begin <= history.prompt - 2 * self.shared:
            asking = list(range(begin - self.shared, begin))
        else:
            begin = i
        blocks = max(0, begin // size - near)
        attention, keys = history.by_kv_head(), history.rotated(history.k, torch.zeros(history.k.shape[1], dtype=torch.long))
        means = []
        for block in range(blocks):
            inside, seen = range(block * size, (block + 1) * size), (block + 1 + near) * size
            rows = []
            for k, got in zip(keys, coarse(attention[:, :seen, inside].sum(1)).tolist(), strict=True):
                ranked = sorted(zip(got, inside, strict=True), reverse=True)
                rows.append(k[[token for _, token in ranked[: self.num_representatives]]].mean(0))
            means.append(torch.stack(rows))
        q = history.rotated(history.q[:, asking], torch.full((len(asking),), self._far)).sum(1)
        heads = len(q) // len(history.k)
        worth = [float((q * mean.repeat_interleave(heads, 0)).sum().detach()) for mean in means]
        ranked = sorted(zip(coarse(torch.tensor(worth[1:])).tolist(), range(1, blocks), strict=True), reverse=True)
        found = sorted({0, *(block for _, block in ranked[: self.num_blocks])}) if blocks else []
        far = [token for block in found for token in range(block * size, (block + 1) * size)]
        relative = i - torch.arange(history.k.shape[1])
        relative[far] = self._far
        local = range(max(0, i // size - near) * size, i + 1)
        return Sight(tokens=[[*far, *local]] * len(history.k), relative=relative.repeat(len(history.k), 1))


METHOD = InfLLM
EXAMPLES = (
    InfLLM(block_size=4, num_blocks=2, local_window=8, num_representatives=2),
    InfLLM(block_size=5, num_blocks=1, local_window=3),
    InfLLM(block_size=2, num_blocks=2, local_window=3, num_representatives=1, shared=4, storage="device"),
    InfLLM(block_size=1, num_blocks=6, local_window=5, num_representatives=1, storage="disk"),
)
NEUTRAL = (InfLLM(block_size=8, num_blocks=2, local_window=64),)
BAD = (
    {"block_size": 0, "num_blocks": 1, "local_window": 8},
    {"block_size": 4, "num_blocks": 0, "local_window": 8},
    {"block_size": 4, "num_blocks": 1, "local_window": 0},
    {"block_size": 4, "num_blocks": 1, "local_window": 8, "num_representatives": 0},
    {"block_size": 4, "num_blocks": 1, "local_window": 8, "shared": 6},
    {"block_size": 4, "num_blocks": 1, "local_window": 8, "storage": "tape"},
)

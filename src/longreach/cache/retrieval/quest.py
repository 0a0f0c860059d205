"""Quest: everything is kept, and every query reads the few pages whose keys may fit it best; the prompt is read whole.

Paper: Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference, 2024, arXiv:2406.10774
Cost: the cache of the whole text, and the bounds of its pages, a sixteenth more; less of it is read for a token.
Limits: the window of the model is unchanged; it saves time, not memory.
Differs from the paper: the page that is being filled is always seen and never ranked. Bounds count to ten binary digits, and of pages that
are then equal the later is read. Every token after the prompt chooses its pages, those of a later question, too, where the official code
reads a run of more than one token whole.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.cache.base import CachePolicy
from longreach.core.bands import Band, LayerContext
from longreach.core.errors import SpecError
from longreach.core.memory import Blocks, View
from longreach.core.method import MethodInfo, at_least
from longreach.core.ranking import coarse, ranking
from longreach.core.sight import History, Sight

_FEWEST = 3  # pages, as in the official code


@dataclass(frozen=True, kw_only=True)
class Quest(CachePolicy):
    """Args: budget: tokens that a head reads for a query (paper: 256 to 4096). page_size: tokens a page (paper: 16). dense_layers: first
    layers that read everything (paper: 2); the last layer never does.
    """

    info: ClassVar = MethodInfo(title="Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference", paper="arXiv:2406.10774")
    budget: int
    page_size: int = 16
    dense_layers: int = 2

    def __post_init__(self) -> None:
        at_least(self, 1, "budget", "page_size")
        at_least(self, 0, "dense_layers")
        if self.budget < _FEWEST * self.page_size:
            raise SpecError(f"quest: budget={self.budget} must be at least {_FEWEST * self.page_size}, {_FEWEST} pages")

    @property
    def _pages(self) -> int:
        """Pages that a query chooses, beside the one that is being filled."""
        return self.budget // self.page_size - 1

    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """The pages, and what is not yet one; the first layers have no pages."""
        if layer.full_layers.index(layer.layer_idx) < min(self.dense_layers, len(layer.full_layers) - 1):
            return (Band(),)
        return (Blocks(chooser=self, chunk=self.page_size, near=0, storage="device", after_prompt=True), Band())

    def represent(self, keys: Tensor, received: Tensor | None) -> Tensor:
        """The largest and the smallest number of each channel."""
        return torch.cat([keys.amax(2), keys.amin(2)], -1)

    def select(self, q: Tensor, representatives: Tensor) -> Tensor:
        """For each head, the pages with the largest product that a key between the bounds could have; of equal ones the later."""
        b, h, t, d = q.shape
        k, n = representatives.shape[1:3]
        parts = torch.cat([q.clamp(min=0), q.clamp(max=0)], -1).to(representatives.dtype)
        bounds = (parts.reshape(b, k, h // k * t, 2 * d) @ representatives.mT).view(b, h, t, n)
        index = torch.arange(n, device=q.device).expand(bounds.shape)
        return ranking(bounds, index).topk(min(self._pages, n), dim=-1).indices

    def sight(self, i: int, history: History) -> Sight:
        """Page by page, for each head."""
        size, heads = self.page_size, len(history.q)
        first = self.stores(history.layer)[0]
        pages = i // size if isinstance(first, Blocks) and i >= history.prompt else 0
        keys = history.rotated(history.k, torch.arange(history.k.shape[1]))
        q = history.rotated(history.q[:, i : i + 1], torch.tensor([i]))[:, 0]
        seen = []
        for head in range(heads):
            mine = keys[head // (heads // len(keys))]
            worth = [
                torch.maximum(q[head] * page.amax(0), q[head] * page.amin(0)).sum() for page in mine[: pages * size].split(size)[:pages]
            ]
            ranked = sorted(zip(coarse(torch.stack(worth).detach()).tolist(), range(pages), strict=True), reverse=True) if pages else []
            chosen = [token for _, page in ranked[: self._pages] for token in range(page * size, (page + 1) * size)]
            seen.append([*chosen, *range(pages * size, i + 1)])
        return Sight(tokens=seen)


METHOD = Quest
EXAMPLES = (
    Quest(budget=12, page_size=4, dense_layers=0),
    Quest(budget=9, page_size=3, dense_layers=1),
    Quest(budget=4, page_size=1),
)
NEUTRAL = (Quest(budget=64, page_size=4, dense_layers=0),)
BAD = ({"budget": 0}, {"budget": 47}, {"budget": 64, "page_size": 0}, {"budget": 64, "dense_layers": -1})

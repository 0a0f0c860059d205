"""SnapKV: at the end of the prompt each key-value head keeps what its last queries look at, with its surroundings, and these last tokens.

Paper: SnapKV: LLM Knows What You are Looking for Before Generation, 2024, arXiv:2404.14469
Cost: the last queries' attention is computed once more, once a prompt; the whole prompt is held until the token after it is read.
Limits: what the end of the prompt does not look at is gone when it is asked for later, so put the question last. Cut once: what is
written stays, and so do further turns of a chat. A text that is only read, as to measure its loss, is all prompt, and nothing of it goes.
A prompt ends with the first forward pass over a cache; `generate` and longreach say where it does however they read it; who reads it in
pieces of their own puts them inside `longreach.engine.prompt.prompt_end(tokens)`.
Differs from the paper: heads that share keys and values share what is kept, by the sum of their attention (the official code repeats keys
and values for every query head, and keeps as many caches). Of tokens with equal scores, as neighbours under one maximum have, the later
stay; the code leaves that to topk. Kernel, pooling and window are those of the official code by default (window 32, average over 5 tokens);
its LongBench runs pool by the maximum, over 7 tokens: pooling=maximum,kernel_size=7.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d

from longreach.cache.base import Eviction
from longreach.core.bands import LayerContext
from longreach.core.cuts import PromptEnd
from longreach.core.errors import SpecError
from longreach.core.memory import Signal, Signals
from longreach.core.method import MethodInfo, at_least
from longreach.core.sight import History


@dataclass(frozen=True, kw_only=True)
class SnapKV(Eviction):
    """Args: budget: tokens of the prompt that stay, the window among them. window_size: last tokens of the prompt, whose queries decide
    (paper: 32). kernel_size: neighbouring tokens whose attention is pooled (odd; 1: none). pooling: average or maximum. packed: what is
    kept stands right before what follows, so that the places of what is gone are free for what is written.
    """

    info: ClassVar = MethodInfo(
        title="SnapKV: LLM Knows What You are Looking for Before Generation", paper="arXiv:2404.14469", forgets=True
    )
    signals: ClassVar[tuple[Signal, ...]] = ("observed",)
    budget: int
    window_size: int = 32
    kernel_size: int = 5
    pooling: str = "average"

    def __post_init__(self) -> None:
        at_least(self, 1, "budget", "window_size", "kernel_size")
        if self.window_size > self.budget:
            raise SpecError(f"snapkv: window_size={self.window_size} must be at most budget={self.budget}, which it is a part of")
        if self.kernel_size % 2 == 0:
            raise SpecError(f"snapkv: kernel_size={self.kernel_size} must be odd: a token stands in the middle of its surroundings")
        if self.pooling not in ("average", "maximum"):
            raise SpecError(f"snapkv: pooling={self.pooling} must be average or maximum")

    @property
    def observe(self) -> int:
        """The window."""
        return self.window_size

    @property
    def least(self) -> int:
        """The window."""
        return self.window_size

    def cut(self, layer: LayerContext) -> PromptEnd:
        """Once."""
        return PromptEnd()

    def score(self, signals: Signals, layer: LayerContext) -> Tensor:
        """The attention of the window, pooled over what comes before the window, which stays in any case."""
        assert signals.observed is not None  # noqa: S101 - asked for
        before = max(0, signals.seen - self.window_size)
        score = torch.full_like(signals.observed, float("inf"))
        if before:
            pool = avg_pool1d if self.pooling == "average" else max_pool1d
            score[:, :, :before] = pool(signals.observed[:, :, :before], self.kernel_size, stride=1, padding=self.kernel_size // 2)
        return score

    def worth(self, seen: int, history: History) -> Tensor:
        """Token by token, with nothing beside the first and the last."""
        before, around = max(0, seen - self.window_size), self.kernel_size // 2
        attention = history.by_kv_head()[:, before:seen].sum(1)
        worth = torch.full_like(attention, float("inf"))
        for token in range(before):
            near = attention[:, max(0, token - around) : min(before, token + around + 1)]
            worth[:, token] = near.sum(1) / self.kernel_size if self.pooling == "average" else near.amax(1)
        return worth

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The prompt is read where it stands."""
        return i - j, j <= i


METHOD = SnapKV
EXAMPLES = (
    SnapKV(budget=8, window_size=3, kernel_size=3),
    SnapKV(budget=9, window_size=2, kernel_size=5, pooling="maximum"),
    SnapKV(budget=6, window_size=6, kernel_size=1, packed=True),
)
NEUTRAL = (SnapKV(budget=64),)
BAD = (
    {"budget": 0},
    {"budget": 16, "window_size": 17},
    {"budget": 16, "window_size": 0},
    {"budget": 16, "window_size": 4, "kernel_size": 2},
    {"budget": 16, "window_size": 4, "kernel_size": -1},
    {"budget": 16, "window_size": 4, "pooling": "mean"},
)

"""Focused Transformer: some layers see all that was read before the current window, and are trained to tell it from other texts.

Paper: Focused Transformer: Contrastive Training for Context Scaling, 2023, arXiv:2307.03170
Cost: of a memory layer that of full attention, in time and memory; the other layers keep one window. Training reads every sequence among
`texts` - 1 others of its batch, at the cost of their keys in the memory layers.
Limits: any length within trained positions, but all that lies before the window stands at one place, without order. A model that was not
trained for it is distracted by the memory. Where a window begins, the layers without a memory see few tokens.
Differs from the paper: nothing in how LongLLaMA reads; `top_k`, which the paper's smaller models use and LongLLaMA does not, also keeps its
places. A query meets all earlier windows of its own sequence and of the others, each at its own window and before, where the paper's
sequences are of two windows (with sequences of two windows it is the same). The temperature of the softmax is not learned, as in LongLLaMA.
"""

import re
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.cache.trained.base import AmongTexts
from longreach.core.bands import Band, Constant, LayerContext, Within
from longreach.core.errors import SpecError
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.core.ranking import coarse
from longreach.core.sight import History, Sight

_LISTED = re.compile(r"\d+(/\d+)*")
_AT_ONCE = 8  # texts that a model can be trained among from the start (paper)
_FEW, _LAST = 2, 0.9  # texts before that, and the share of the steps after which there are more (paper)


@dataclass(frozen=True, kw_only=True)
class Focused(AmongTexts):
    """Args: window_size: tokens that are read at a time; all layers see the current ones (paper: the trained window). layers: those with a
    memory, from 0, joined by /; of the layers those with full attention count (paper, and default: at a quarter, half and three quarters of
    them). top_k: keys of the memory that each query head sees, those with the largest inner products; none: all (paper: 128 in small
    models, all in LongLLaMA). texts: that a query meets in training, its own included (paper's d: 2 to 128); more than 8 only in the last
    tenth of the steps, after 2.
    """

    info: ClassVar = MethodInfo(
        title="Focused Transformer: Contrastive Training for Context Scaling",
        paper="arXiv:2307.03170",
        training_free=False,
        changes_positions=True,
        claims=(
            Claim(
                text="more of the attention goes to the text's own keys among those of d texts when training has negatives",
                metric="focused_mass_gain",
                condition="trained",
                at_least=0.0,
            ),
            Claim(
                text="training without negatives (d = 1) makes loss worse as the context grows",
                metric="focused_negatives_gain_8x",
                condition="trained",
                times=8,
                at_least=0.0,
            ),
            Claim(
                text="perplexity falls steadily to 64K tokens after training on 2K",
                metric="focused_gain_8x",
                condition="trained",
                times=8,
                at_least=0.0,
            ),
        ),
    )
    window_size: int
    layers: str | None = None
    top_k: int | None = None
    texts: int = 2

    def __post_init__(self) -> None:
        at_least(self, 1, "window_size", "top_k", "texts")
        if self.layers is not None and not _LISTED.fullmatch(self.layers):
            raise SpecError(f"focused: layers={self.layers} must be numbers of layers, from 0, as in layers=6/12/18")

    def texts_at(self, progress: float) -> int:
        """`texts` where they are few; else 2, and `texts` in the last tenth of the steps."""
        return self.texts if self.texts <= _AT_ONCE or progress >= _LAST else _FEW

    def _remembers(self, layer: LayerContext) -> bool:
        """Whether the layer has a memory."""
        if layer.probe:
            return True
        layers = len(layer.full_layers)
        if self.layers is None:
            step = max(1, layers // 4)
            chosen = [each for each in (step, 2 * step, 3 * step) if each < layers] or [0]
        else:
            chosen = [int(each) for each in self.layers.split("/")]
            if wrong := [each for each in chosen if each >= layers]:
                raise SpecError(f"focused: layers={wrong[0]}: the model has {layers} layers with full attention, from 0")
        return layer.full_layers.index(layer.layer_idx) in chosen

    def stores(self, layer: LayerContext) -> tuple[Band, ...]:
        """The window and, in a memory layer, all before it, as if at the window's first place."""
        window = Band(hi=0, chunk=self.window_size)
        if not self._remembers(layer):
            return (window,)
        memory = Band(
            queries=Within(self.window_size), keys=Constant(0), lo=1, chunk=self.window_size, top=self.top_k, shared=True
        )  # fmt: skip
        return (window, memory)

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """Of a memory layer that sees all."""
        local = i // self.window_size == j // self.window_size
        return torch.where(local, i - j, i % self.window_size), j <= i

    def sight(self, i: int, history: History) -> Sight:
        """The window, and the keys of the memory, one by one."""
        size, groups = self.window_size, len(history.q) // len(history.k)
        first = i // size * size
        relative = (i - torch.arange(history.k.shape[1])).repeat(len(history.k), 1)
        relative[:, :first] = i % size
        local = range(first, i + 1)
        if not self._remembers(history.layer):
            return Sight(tokens=[local] * len(history.k), relative=relative)
        if self.top_k is None or first <= self.top_k:
            return Sight(tokens=[range(i + 1)] * len(history.k), relative=relative)
        keys = history.rotated(history.k[:, :first], torch.zeros(first, dtype=torch.long)).repeat_interleave(groups, 0)
        q = history.rotated(history.q[:, i : i + 1], torch.tensor([i % size]))
        worths = coarse((q * keys).sum(-1).detach()).tolist()
        found = [sorted(((worth, token) for token, worth in enumerate(head)), reverse=True)[: self.top_k] for head in worths]
        return Sight(tokens=[[*(token for _, token in head), *local] for head in found], relative=relative)


METHOD = Focused
EXAMPLES = (
    Focused(window_size=16),
    Focused(window_size=8, layers="1", top_k=5),
    Focused(window_size=11, layers="0", texts=16),
    Focused(window_size=1, layers="0/1", top_k=3),
)
NEUTRAL = (Focused(window_size=64), Focused(window_size=64, layers="0", top_k=1))
BAD = (
    {"window_size": 0},
    {"window_size": 8, "top_k": 0},
    {"window_size": 8, "texts": 0},
    {"window_size": 8, "layers": "1,2"},
    {"window_size": 8, "layers": "last"},
)

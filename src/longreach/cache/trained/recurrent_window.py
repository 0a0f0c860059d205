"""Recurrent windows: the text is read in windows, and the mean of a window's hidden states becomes one key and value for the next.

Paper: Adding Recurrence to Pretrained Transformers for Improved Efficiency and Context Size, 2020, arXiv:2008.07027
Cost: the memory of one window, and a network of three layers that is run once a window. A text is read window by window, in prefill, too.
Limits: any length within trained positions; one vector is all that is left of what lies before the window. It has to be trained.
Differs from the paper: written from its abstract and accounts of it, without its code. What is not told there is chosen here: hidden states
are taken as the attention of `from_layer` gets them; the network has the hidden size and GELU; its last layer gives the key and the value
themselves, which stand at the window's first place, where nothing is turned, and is 0 before training: then the key takes the weight of a
logit of 0, and gives nothing. Windows do not overlap. The first window sees nothing besides itself.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.cache.trained.base import Recurrent
from longreach.core.bands import Band, LayerContext, Within
from longreach.core.errors import SpecError
from longreach.core.memory import Carried, View
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.core.sight import History, Sight


@dataclass(frozen=True, kw_only=True)
class RecurrentWindow(Recurrent):
    """Args: window_size: tokens of a window. from_layer: whose hidden states are pooled; none: the last. into_layer: which sees what they
    become; none: that at half of the depth. Layers count from 0, those with full attention alone.
    """

    info: ClassVar = MethodInfo(
        title="Adding Recurrence to Pretrained Transformers for Improved Efficiency and Context Size",
        paper="arXiv:2008.07027",
        training_free=False,
        bounded_memory=True,
        forgets=True,
        claims=(
            Claim(
                text="better perplexity than the unmodified model for a given amount of computation or memory (GPT-2, PG-19, WikiText-103)",
                metric="recurrent_gain_8x",
                condition="trained",
                times=8,
                at_least=0.01,
            ),
        ),
    )
    window_size: int
    from_layer: int | None = None
    into_layer: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "window_size")
        at_least(self, 0, "from_layer", "into_layer")

    @property
    def feeds_back(self) -> bool:
        """Where the hidden states lie behind the layer that sees what they become, or may."""
        return self.from_layer is None or self.into_layer is None or self.from_layer >= self.into_layer

    def _layer(self, given: int | None, usual: int, name: str, layer: LayerContext) -> int:
        layers = len(layer.full_layers)
        if given is not None and given >= layers and not layer.probe:
            raise SpecError(f"recurrent_window: {name}={given}: the model has {layers} layers with full attention, from 0")
        return usual if given is None else given

    def _source(self, layer: LayerContext) -> int:
        """The layer whose hidden states are pooled."""
        return self._layer(self.from_layer, len(layer.full_layers) - 1, "from_layer", layer)

    def _carries(self, layer: LayerContext) -> bool:
        """Whether the layer sees what they become."""
        into = self._layer(self.into_layer, len(layer.full_layers) // 2, "into_layer", layer)
        return layer.probe or (layer.layer_idx in layer.full_layers and layer.full_layers.index(layer.layer_idx) == into)

    def weights(self, layer: LayerContext) -> dict[str, Tensor]:
        """Of the layer that sees the key: two layers of random weights, as linear layers begin, and a third of 0."""
        self._source(layer)  # refuses now what the model has not got
        if not self._carries(layer):
            return {}
        width, generator = layer.hidden_size, torch.Generator().manual_seed(0)
        first, second = (torch.randn(width, width, generator=generator) / width**0.5 for _ in range(2))
        out = 2 * layer.num_kv_heads * layer.head_dim
        return {
            "first": first, "first_bias": torch.zeros(width), "second": second, "second_bias": torch.zeros(width),
            "third": torch.zeros(out, width), "third_bias": torch.zeros(out),
        }  # fmt: skip

    def carry(self, hidden: Tensor, layer: LayerContext) -> tuple[Tensor, Tensor]:
        """The mean, through three layers."""
        x = hidden.mean(1)
        for name in ("first", "second", "third"):
            weight, bias = (layer.weights[f"recurrent_window.{part}"].to(x.dtype) for part in (name, f"{name}_bias"))
            x = torch.nn.functional.linear(torch.nn.functional.gelu(x) if name != "first" else x, weight, bias)
        k, v = x.view(len(x), 2, layer.num_kv_heads, 1, layer.head_dim).unbind(1)
        return k, v

    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """The window and, in one layer, what the window before it left."""
        window = Band(hi=0, chunk=self.window_size)
        if not self._carries(layer):
            return (window,)
        return (Carried(maker=self, window=self.window_size, source=self._source(layer), queries=Within(self.window_size)), window)

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """Of tokens, the window."""
        return i - j, (j <= i) & (i // self.window_size == j // self.window_size)

    def sight(self, i: int, history: History) -> Sight:
        """The window, and the one key, made anew."""
        size, layer = self.window_size, history.layer
        first, heads = i // size * size, len(history.k)
        local = Sight(tokens=[range(first, i + 1)] * heads)
        if not self._carries(layer) or not first or not history.hidden:
            return local
        x = history.hidden[self._source(layer)][first - size : first].sum(0) / size
        for number, name in enumerate(("first", "second", "third")):
            weight, bias = (layer.weights[f"recurrent_window.{part}"].double() for part in (name, f"{name}_bias"))
            x = weight @ (x * (torch.special.erf(x / 2**0.5) + 1) / 2 if number else x) + bias
        half = heads * layer.head_dim
        k, v = x[:half].view(heads, 1, -1), x[half:].view(heads, 1, -1)
        return Sight(tokens=local.tokens, beside=(k, v, i % size))


METHOD = RecurrentWindow
EXAMPLES = (
    RecurrentWindow(window_size=16),
    RecurrentWindow(window_size=7, from_layer=0, into_layer=1),
    RecurrentWindow(window_size=12, from_layer=1, into_layer=1),
    RecurrentWindow(window_size=16, into_layer=0),
)
NEUTRAL = (RecurrentWindow(window_size=64),)
BAD = ({"window_size": 0}, {"window_size": 8, "from_layer": -1}, {"window_size": 8, "into_layer": -1})

"""How far a stack of methods lets a query see, by theory.

Source: Exploring Transformer Extrapolation, 2023, arXiv:2307.10156: the weights exp(bias(t)) of the distances t have a finite sum, or not,
and where they have one, most of it lies within the theoretical receptive field.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longreach.analysis.series import Field, fields_of
from longreach.attention.base import AttentionPolicy, Biases
from longreach.cache.base import CachePolicy
from longreach.core.bands import Band, LayerContext
from longreach.core.errors import InputError
from longreach.core.method import Method
from longreach.core.spec import unparse


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What one layer sees. Args: spec: of the methods. epsilon: the share of the weights that may lie beyond a field.

    heads: by the series of their weights; none where nothing depends on the distance but the window. window: the nearest tokens that are
    seen at all, the query's own included; None: all. sinks: first tokens that are seen at any distance, beside them.
    """

    spec: str
    epsilon: float
    heads: tuple[Field, ...]
    window: int | None
    sinks: int


def reach_of(methods: Sequence[Method], layer: LayerContext, epsilon: float) -> Reach | None:
    """The reach of a stack of methods in a layer; None where it neither biases logits by the distance nor limits what is seen.

    Raises: InputError for an epsilon that is not between 0 and 1, or a bias that is learned and not in the layer.
    """
    if not 0 < epsilon < 1:
        raise InputError(f"epsilon={epsilon:g} must be between 0 and 1")
    window, sinks = _window(methods, layer)
    biased = [method for method in methods if isinstance(method, Biases)]
    try:
        for method in biased:
            method.bias(_PROBE, layer)
    except KeyError as missing:  # of the layer's own weights
        raise InputError(f"the bias of {unparse(methods)} is learned, and {missing} is not here; give a model that has it") from None
    if not biased and window is None:
        return None

    def log_weights(distance: Tensor) -> Tensor:
        total = torch.stack([method.bias(distance, layer).double() for method in biased]).sum(0)
        return total if window is None else total.masked_fill(distance >= window, float("-inf"))

    heads = tuple(fields_of(log_weights, epsilon)) if biased else ()
    return Reach(spec=unparse(methods), epsilon=epsilon, heads=heads, window=window, sinks=sinks)


_PROBE = torch.zeros(1)


def _window(methods: Sequence[Method], layer: LayerContext) -> tuple[int | None, int]:
    """The nearest tokens that bands show, and the first ones that they show at any distance."""
    for method in methods:
        if not isinstance(method, AttentionPolicy | CachePolicy) or (views := method.views(layer)) is None:
            continue
        bands = [view for view in views if isinstance(view, Band)]
        first = max((count for band in bands for count in (band.sinks, band.before) if count is not None), default=0)
        reaches = [band.reach for band in bands if band.sinks is None and band.before is None]
        if len(bands) < len(views) or None in reaches:  # chunks are chosen, or everything is seen
            return None, first
        return max((reach + 1 for reach in reaches if reach is not None), default=0), first
    return None, 0

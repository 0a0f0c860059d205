"""Puts attention in tiles in place of a model's own, under masks that are made tile by tile, too."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from longreach.attention.base import Chunks
from longreach.core.errors import LongreachError, UnsupportedError
from longreach.engine.forward import apart, rounding, transformer_of
from longreach.engine.interface import interface
from longreach.engine.tiled import Tiling, tiled_attention

_NAME = "longreach_tiles"
_PROBE_TOKENS = 11
_PROBE_SIZES = (4, 3)


@dataclass(frozen=True, eq=False)
class TileMask:
    """What transformers' mask code passes along in place of a mask: how any part of it is made. Args: arguments: of that code."""

    arguments: dict[str, Any]
    ndim = 4  # transformers hands masks of four dimensions through unchanged

    def __call__(self, queries: slice, keys: slice) -> Tensor:
        """[B, 1, T, S] of some queries and keys."""
        given = self.arguments
        device, function, padding = given["device"], given["mask_function"], given.get("attention_mask")
        first, offset = given.get("q_offset", 0), given.get("kv_offset", 0)
        at = torch.arange(given["batch_size"], device=device).view(-1, 1, 1, 1)
        q = torch.arange(queries.start, queries.stop, device=device).view(1, 1, -1, 1) + first
        k = torch.arange(keys.start, keys.stop, device=device).view(1, 1, 1, -1) + offset
        seen: Tensor = function(at, torch.zeros_like(at[:1]), q, k)
        if padding is not None:
            missing = offset + given["kv_length"] - padding.shape[-1]
            seen = seen & pad(padding, (0, max(0, missing)))[:, None, None, offset + keys.start : offset + keys.stop]
        return seen.expand(-1, -1, q.shape[2], k.shape[3])

    def to(self, *args: Any, **kwargs: Any) -> "TileMask":
        """Itself."""
        return self

    def contiguous(self) -> "TileMask":
        """Itself: `generate` calls this on masks."""
        return self


@contextmanager
def in_chunks(model: PreTrainedModel, method: Chunks) -> Iterator[None]:
    """Inside, the model's attention is computed in tiles of the method's sizes; undone on leaving.

    Raises: UnsupportedError for a model that does not give the same that way.
    """
    _prove(model, method)
    with _installed(model, method.sizes()):
        yield


@contextmanager
def _installed(model: PreTrainedModel, sizes: tuple[int, int]) -> Iterator["_Kernel"]:
    kernel = _Kernel(sizes)
    with ExitStack() as undo:
        undo.enter_context(interface(model, f"{_NAME}_{sizes[0]}_{sizes[1]}", kernel, _mask))
        yield kernel


class _Kernel:
    """The attention function registered with transformers. Args: sizes: of tiles. ran: whether it did."""

    def __init__(self, sizes: tuple[int, int]) -> None:
        self.sizes = sizes
        self.ran = False

    def __call__(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, **options: Any) -> tuple[Tensor, None]:
        for name in ("dropout", "output_attentions", "position_bias"):
            if isinstance(value := options.get(name), Tensor) or value:
                raise LongreachError(f"attention in chunks has no {name}; set it to 0 or leave it out, or leave the method")
        scale = options.get("scaling")
        tiling = Tiling(
            self.sizes, _seen(mask, q, k, options.get("is_causal", getattr(module, "is_causal", True))),
            q.shape[-1] ** -0.5 if scale is None else scale, options.get("softcap"),
        )  # fmt: skip
        self.ran = True
        return tiled_attention(q, k, v, tiling, options.get("s_aux")).transpose(1, 2).contiguous(), None


def _seen(mask: Any, q: Tensor, k: Tensor, causal: bool) -> Any:
    """Who sees whom in a tile, from whatever a model has for a mask."""
    if isinstance(mask, TileMask):
        return mask
    if isinstance(mask, Tensor):
        if mask.requires_grad:
            raise LongreachError("attention in chunks has no gradients for a bias that is learned; leave the method")
        return lambda rows, columns: mask[:, :, rows, columns]
    if mask is not None:
        raise LongreachError(f"attention in chunks cannot read a mask of the type {type(mask).__name__}; leave the method")
    before = k.shape[2] - q.shape[2]

    def behind(rows: slice, columns: slice) -> Tensor | None:
        if not causal or q.shape[2] == 1:
            return None
        queries = torch.arange(rows.start, rows.stop, device=q.device)[:, None] + before
        return (queries >= torch.arange(columns.start, columns.stop, device=q.device))[None, None]

    return behind


def _mask(*args: Any, **kwargs: Any) -> Any:
    """The mask function registered with transformers."""
    if kwargs.get("use_vmap"):  # a pattern of the model's own that is not made for tiles
        return ALL_MASK_ATTENTION_FUNCTIONS["sdpa"](**kwargs, allow_is_causal_skip=False)
    if isinstance(kwargs.get("q_offset"), Tensor):  # a static cache changes its own count in place
        kwargs["q_offset"] = kwargs["q_offset"].clone()
    return TileMask(kwargs)


@torch.no_grad()
def _prove(model: PreTrainedModel, method: Chunks) -> None:
    """Refuse a model that attention in tiles gives other states, or that computes attention elsewhere."""
    base, config = transformer_of(model), model.config.get_text_config()
    ids = torch.arange(3, 3 + 2 * _PROBE_TOKENS, device=next(base.parameters()).device).view(2, -1) % config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, _PROBE_TOKENS // 2 :] = 0
    mode, why = model.training, ""
    model.eval()
    try:
        with torch.autocast(model.device.type, enabled=False):
            wanted = base(ids, attention_mask=mask, return_dict=True).last_hidden_state[mask.bool()]
            with _installed(model, _PROBE_SIZES) as kernel:
                ours = base(ids, attention_mask=mask, return_dict=True).last_hidden_state[mask.bool()]
            if not kernel.ran:
                why = "its attention does not go through transformers' attention interface"
            elif not (differs := apart(ours, wanted)) < rounding(model):
                why = f"attention in chunks changes its states by {differs:.2g} of themselves"
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, LongreachError) as error:
        why = f"its attention cannot be computed in chunks ({type(error).__name__}: {str(error).splitlines()[0]})"
    finally:
        model.train(mode)
    if why:
        raise UnsupportedError(method.spec, type(model).__name__, why, "choose a model whose attention is a softmax of products")

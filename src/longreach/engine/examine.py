"""Learns once what the engine must know of a model, and proves the engine on it."""

import weakref
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from longreach.core.errors import UnsupportedError
from longreach.engine import rotation
from longreach.engine._states import has_state
from longreach.engine.cache_argument import cache_argument
from longreach.engine.engine import installed
from longreach.engine.finite import NotFiniteError, check_finite
from longreach.engine.interface import interface
from longreach.engine.rotation import Attention
from longreach.engine.setup import Setup

# By the names of their modules: a module leads back to its model while a method is applied, and would keep it from being freed.
_known: weakref.WeakKeyDictionary[PreTrainedModel, list[tuple[str, Attention]]] = weakref.WeakKeyDictionary()
_NO_MODULE = nn.Module()


def examine(model: PreTrainedModel, trained_window: int) -> list[Attention]:
    """What the engine must know of the model's attention layers; found once, and proven by comparing logits.

    Raises: UnsupportedError that says what differed; NotFiniteError for a model whose own logits are not finite.
    """
    if model not in _known:

        def run(function: rotation.Capture, ids: Tensor) -> None:
            with interface(model, "longreach_probe", function):
                model(ids, use_cache=False)

        mode = model.training
        model.eval()
        try:
            with torch.autocast(model.device.type, enabled=False):  # proven in the model's own precision
                attentions = rotation.probe(model, run)
                _prove(model, attentions, trained_window)
        except (UnsupportedError, NotFiniteError):
            raise
        except Exception as error:  # models with attention, positions or a cache of their own fail in ways of their own
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            raise rotation.refusal(model, f"it cannot be run with another attention function ({what})") from error
        finally:
            model.train(mode)
        if all(attention.rotation is None for attention in attentions):
            return attentions  # under frequencies of 0, which another method may change, layers look as if they had no positions
        names = {module: name for name, module in model.named_modules()}
        _known[model] = [(names[each.module], replace(each, module=_NO_MODULE)) for each in attentions]
    return [replace(each, module=model.get_submodule(name)) for name, each in _known[model]]


@torch.no_grad()
def _prove(model: PreTrainedModel, attentions: list[Attention], trained_window: int) -> None:
    """Compare the engine under full attention with the model as it is: at once, and after cached tokens."""
    ids = (torch.arange(12, device=next(model.parameters()).device)[None] * 5 + 1) % model.config.get_text_config().vocab_size

    def logits() -> Tensor:
        """Of all tokens at once, and of all in pieces."""
        cache = DynamicCache(config=model.config.get_text_config())
        parts = [model(part, **cache_argument(model, cache), use_cache=True)[0] for part in (ids[:, :6], ids[:, 6:11], ids[:, 11:])]
        return torch.cat([model(ids, use_cache=False)[0], *parts], 1).float()  # logits, or without a head hidden states

    stock = logits()
    check_finite(stock.flatten(1), model, logits)
    _check_pieces(model, *stock.chunk(2, 1))
    with installed(model, attentions, Setup(), trained_window):
        ours = logits()
    differs = float((ours - stock).abs().max() / stock.std())
    if not differs < (1e-3 if model.dtype == torch.float32 else 0.2):
        why = f"under full attention its logits differ by {differs:.2g} standard deviations from those of the plain model"
        raise rotation.refusal(model, why)


def _check_pieces(model: PreTrainedModel, whole: Tensor, pieces: Tensor) -> None:
    """Refuse a model whose state does not go on from one piece of a text to the next, also without a method."""
    if not any(has_state(layer) for layer in DynamicCache(config=model.config.get_text_config()).layers):
        return
    apart = (pieces - whole).abs() / whole.std()
    # Below float32, a token may be sent to other experts for its rounding alone.
    differs, most = (float(apart.max()), 1e-2) if model.dtype == torch.float32 else (float(apart.mean()), 0.2)
    if not differs < most:
        why = f"it does not read in pieces what it reads at once, also without a method: logits differ by {differs:.2g} standard deviations"
        raise rotation.refusal(model, why)

"""Lets encoder-decoders read texts of any length: pieces of the encoder's window, and cross-attention to the nearest keys of all of them.

With keys k = W h + b, a product q k is (q W) h and what all keys share. So the encoder's states are all that is kept of a text, and every
head of every layer searches them with queries of its own. Texts inside the window are read by the model itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from inspect import Signature, signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import Cache, PreTrainedModel

from longreach.attention.base import CrossRetrieval
from longreach.core.errors import LongreachError, UnsupportedError
from longreach.engine.forward import apart, forward_replaced, named_inputs, rounding
from longreach.engine.nearest import attend_nearest
from longreach.engine.tables import position_tables
from longreach.engine.window import stated_window

_PROBE_TOKENS = 8
_PROJECTIONS = (("q_proj", "k_proj", "v_proj", "out_proj"), ("q", "k", "v", "o"))
_MASKS = ("attention_mask", "mask")
_WEIGHTS = "attention weights of a text longer than the encoder's window are not given; leave out output_attentions"
_LAYERS = "states of layers are not given of a text longer than the encoder's window; leave out output_hidden_states"
_AGAIN = "layers that run again for their gradients cannot retrieve from a long text; turn gradient checkpointing off"


@dataclass(eq=False)
class _Text:
    """Of a pass of the decoder over a long text. Args: states: of the encoder, [B, S, E]. seen: [B, S] bool, None: all. counts: [B], how
    many keys queries see. queries: what the layer under way projected.
    """

    states: Tensor
    seen: Tensor | None
    counts: Tensor
    queries: Tensor | None = None


_text: ContextVar[_Text | None] = ContextVar("text that cross-attention retrieves from", default=None)


@contextmanager
def retrieved(model: PreTrainedModel, method: CrossRetrieval) -> Iterator[None]:
    """Inside, texts longer than the encoder's window are read in the method's pieces and retrieved from; undone on leaving.

    Raises: UnsupportedError for a model without a decoder that attends to an encoder's states as such, and for a window that it lacks.
    """
    if not model.config.is_encoder_decoder:
        why = "it is no encoder-decoder, and has no cross-attention to retrieve for"
        raise UnsupportedError(method.spec, type(model).__name__, why, "choose BART, T5 or their kin")
    attentions = _proven(model, method)
    window = _window(model, method)
    encoder: Any = model.get_encoder()
    with ExitStack() as undo:
        undo.enter_context(forward_replaced(encoder, _Encoder(encoder, method, window)))
        undo.enter_context(_retrieving(model, attentions, window, method.keys_seen(window)))
        yield


@contextmanager
def _retrieving(model: PreTrainedModel, attentions: Sequence["_CrossAttention"], window: int, count: int) -> Iterator[None]:
    decoder: Any = model.get_decoder()
    with ExitStack() as undo:
        undo.enter_context(forward_replaced(decoder, _Decoder(decoder, window, count)))
        for each in attentions:
            undo.callback(each.module.register_forward_pre_hook(each.before, with_kwargs=True).remove)
            undo.callback(each.q.register_forward_hook(each.on_queries).remove)
            undo.callback(each.out.register_forward_pre_hook(each.before_out).remove)
        yield


class _Forward:
    """Stands in a module as its forward pass, with the signature of its own. Copies of a model have theirs."""

    def __init__(self, module: nn.Module, window: int) -> None:
        self.own, self.config, self.window = module.forward, module.config, window
        self.module = module

    @property
    def __signature__(self) -> Signature:
        return signature(self.own)  # `generate` goes by it

    def _check(self, inputs: dict[str, Any]) -> None:
        if inputs.get("output_attentions") or getattr(self.config, "output_attentions", False):
            raise LongreachError(_WEIGHTS)


class _Encoder(_Forward):
    """Reads a text longer than the window in pieces, each text of a batch by its own length; what is padding gets zeros."""

    def __init__(self, module: nn.Module, method: CrossRetrieval, window: int) -> None:
        super().__init__(module, window)
        self.method = method

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        inputs = named_inputs(self.own, args, kwargs)
        given = inputs.get("input_ids")
        given = inputs.get("inputs_embeds") if given is None else given
        if given is None or given.shape[1] <= self.window:
            return self.own(**inputs)
        self._check(inputs)
        if inputs.get("output_hidden_states") or getattr(self.config, "output_hidden_states", False):
            raise LongreachError(_LAYERS)
        if inputs.get("attention_mask") is None:
            inputs["attention_mask"] = torch.ones(given.shape[:2], dtype=torch.long, device=given.device)
        as_dict = inputs.pop("return_dict", None)
        tokens = {name: inputs.pop(name) for name, value in [*inputs.items()] if isinstance(value, Tensor)}
        for name, value in tokens.items():
            if value.shape[:2] != given.shape[:2]:
                raise LongreachError(f"the input {name} {tuple(value.shape)} cannot be cut into pieces with the text; leave it out")
        output = self._read(tokens, partial(self.own, **inputs, return_dict=True))
        wanted = getattr(self.config, "return_dict", True) if as_dict is None else as_dict
        return output if wanted else output.to_tuple()

    def _read(self, tokens: dict[str, Tensor], own: Any) -> Any:
        """The encoder's output of long texts, from inputs [B, T, ...]."""
        batch, width = tokens["attention_mask"].shape
        spans = _spans(tokens["attention_mask"])
        jobs = [(row, *(begin + place for place in piece)) for row, (begin, end) in enumerate(spans) for piece in self._pieces(end - begin)]
        kept: list[list[Tensor]] = [[] for _ in range(batch)]
        output: Any = None
        for at in range(0, len(jobs), batch):
            some = jobs[at : at + batch]
            most = max(end - begin for _, begin, end, *_ in some)
            parts = {name: [_padded(value[row, begin:end], 0, most) for row, begin, end, *_ in some] for name, value in tokens.items()}
            output = own(**{name: torch.stack(each) for name, each in parts.items()})
            for states, (row, begin, _, first, last) in zip(output.last_hidden_state, some, strict=True):
                kept[row].append(states[first - begin : last - begin])
        rows = [_padded(torch.cat(each), begin, width) for each, (begin, _) in zip(kept, spans, strict=True)]
        return type(output)(last_hidden_state=torch.stack(rows))

    def _pieces(self, length: int) -> Sequence[tuple[int, int, int, int]]:
        return ((0, length, 0, length),) if length <= self.window else self.method.pieces(length, self.window)


class _Decoder(_Forward):
    """Has cross-attention retrieve where the text is longer than the window. Args: count: keys that a query sees of such a text."""

    def __init__(self, module: nn.Module, window: int, count: int) -> None:
        super().__init__(module, window)
        self.count = count

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        inputs = named_inputs(self.own, args, kwargs)
        states = inputs.get("encoder_hidden_states")
        if states is None or states.shape[1] <= self.window:
            return self.own(**inputs)
        self._check(inputs)
        if self.module.training and getattr(self.module, "gradient_checkpointing", False):
            raise LongreachError(_AGAIN)
        mask = inputs.get("encoder_attention_mask")
        if mask is not None and mask.shape != states.shape[:2]:
            what = f"a mask {tuple(mask.shape)} does not say which of {states.shape[1]} tokens are padding"
            raise LongreachError(f"{what}; give [batch, tokens]")
        spans = [(0, states.shape[1])] * len(states) if mask is None else _spans(mask)
        counts = torch.tensor([self.count if end - begin > self.window else self.window for begin, end in spans])
        token = _text.set(_Text(states, None if mask is None else mask.bool(), counts))
        try:
            return self.own(**inputs)
        finally:
            _text.reset(token)


class _CrossAttention:
    """Hooks of one layer's cross-attention, which then runs on one token of the text, and gets what was retrieved before its output.

    Args: module: it. source: the input that brings the encoder's states. names: of its projections.
    """

    def __init__(self, module: nn.Module, source: str, names: Sequence[str]) -> None:
        self.module, self.source = module, source
        self.q, self.k, self.v, self.out = (getattr(module, name) for name in names)
        self.heads: int = getattr(module, "num_heads", None) or module.n_heads  # type: ignore[assignment]  # a module's attributes may be tensors
        self.scale: float = getattr(module, "scaling", 1.0)

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Spare the module the text (a hook before it)."""
        if _text.get() is None:
            return None
        inputs = named_inputs(module.forward, args, kwargs)
        for name, value in inputs.items():
            if name == self.source:
                inputs[name] = value[:, :1]
            elif name in _MASKS or isinstance(value, Cache):
                inputs[name] = None
        return (), inputs

    def on_queries(self, module: nn.Module, args: Any, output: Tensor) -> None:
        """Keep the queries (a hook after their projection)."""
        if (text := _text.get()) is not None:
            text.queries = output

    def before_out(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Put what was retrieved in place of what was attended to (a hook before the output projection)."""
        text = _text.get()
        return None if text is None else (self._attended(text), *args[1:])

    def _attended(self, text: _Text) -> Tensor:
        """[B, T, H * D]."""
        given, text.queries = text.queries, None
        assert given is not None  # noqa: S101 - set by the hook on their projection, which runs before
        wide = torch.promote_types(given.dtype, torch.float32)
        keys, values = (each.weight.to(wide).unflatten(0, (self.heads, -1)) for each in (self.k, self.v))
        q = given.to(wide).unflatten(2, (self.heads, -1)) * self.scale
        search = torch.einsum("bthd,hde->bthe", q, keys)
        seen = None if text.seen is None else text.seen.to(q.device)
        found = attend_nearest(search.flatten(1, 2), text.states.to(q.device), seen, text.counts).unflatten(1, search.shape[1:3])
        out = torch.einsum("bthe,hde->bthd", found, values).flatten(2)
        return (out if self.v.bias is None else out + self.v.bias.to(wide)).to(given.dtype)


def _spans(mask: Tensor) -> list[tuple[int, int]]:
    """Where each text [B, T] begins and ends; one that is all padding has a token."""
    real = mask.bool()
    begins = real.int().argmax(1)
    ends = torch.maximum(real.shape[1] - real.int().flip(1).argmax(1), begins + 1)
    return [(int(begin), int(end)) if some else (0, 1) for begin, end, some in zip(begins, ends, real.any(1), strict=True)]


def _padded(part: Tensor, before: int, length: int) -> Tensor:
    """[length, ...] with the part [n, ...] from `before` on, and zeros around."""
    return pad(part, (*[0, 0] * (part.ndim - 1), before, length - before - len(part)))


def _window(model: PreTrainedModel, method: CrossRetrieval) -> int:
    encoder: Any = model.get_encoder()
    inside = {id(module) for module in encoder.modules()}
    limit = min((table.positions for table in position_tables(model) if id(table.module) in inside), default=None)
    window = method.stated_window() or limit or stated_window(model.config)
    if window is None:
        why = "its config does not state how long the texts are that its encoder reads"
        raise UnsupportedError(method.spec, type(model).__name__, why, "give that in tokens, as window_size=512")
    if limit is not None and window > limit:
        why = f"its encoder has positions for {limit} tokens"
        raise UnsupportedError(method.spec, type(model).__name__, why, f"give a window_size up to {limit}")
    return window


@torch.no_grad()
def _proven(model: PreTrainedModel, method: CrossRetrieval) -> list[_CrossAttention]:
    """The decoder's cross-attentions, when retrieving all keys of a short text gives what the model gives.

    Raises: UnsupportedError where it does not.
    """
    mode, why = model.training, ""
    model.eval()
    try:
        with torch.autocast(model.device.type, enabled=False):
            ids = torch.arange(3, 3 + 2 * _PROBE_TOKENS, device=model.device).view(2, -1) % model.config.get_text_config().vocab_size
            mask = torch.ones_like(ids)
            mask[1, _PROBE_TOKENS // 2 :] = 0
            encoder: Any = model.get_encoder()
            read = encoder(input_ids=ids, attention_mask=mask, return_dict=True)
            run = partial(model, encoder_outputs=read, attention_mask=mask, decoder_input_ids=ids[:, :3], use_cache=False)
            attentions, wanted = _found(model, read.last_hidden_state, run)
            with _retrieving(model, attentions, window=0, count=_PROBE_TOKENS):
                differs = apart(run()[0], wanted)
            if not differs < rounding(model):
                why = f"searching its encoder's states changes its output by {differs:.2g} of itself"
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, LongreachError) as error:
        said = error.why if isinstance(error, UnsupportedError) else f"{type(error).__name__}: {str(error).splitlines()[0]}"
        why = f"its decoder cannot retrieve from a text ({said})"
    finally:
        model.train(mode)
    if why:
        raise UnsupportedError(method.spec, type(model).__name__, why, "choose BART, T5 or their kin")
    return attentions


def _found(model: PreTrainedModel, states: Tensor, run: Any) -> tuple[list[_CrossAttention], Tensor]:
    """The decoder's cross-attentions, and the model's output. Raises: UnsupportedError for one whose projections are not known."""
    decoder: Any = model.get_decoder()
    sources: dict[nn.Module, str] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = named_inputs(module.forward, args, kwargs)
        for name in (name for name, value in inputs.items() if value is states):
            sources[module] = name

    with ExitStack() as undo:
        for module in decoder.modules():
            undo.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
        output = run()[0]
    found = [
        _CrossAttention(module, source, names)
        for module, source in sources.items()
        for names in _PROJECTIONS
        if all(type(getattr(module, name, None)) is nn.Linear for name in names)
    ]
    known = {module for each in found for module in each.module.modules()}
    for module in sources:
        if module not in known and known.isdisjoint(module.modules()):
            why = f"the projections of its {type(module).__name__} are not plain linear layers of a known name"
            raise UnsupportedError("retrieval", type(model).__name__, why, "merge adapters into the model first")
    if not found:
        raise UnsupportedError("retrieval", type(model).__name__, "no layer attends to what its encoder gives", "choose BART or T5")
    return found, output

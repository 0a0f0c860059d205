"""What holds for every method that has a decoder retrieve from a text longer than its encoder's window."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel

from longreach.attention.base import CrossRetrieval
from longreach.core.errors import LongreachError
from longreach.core.method import Method
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.testing.conformance._snapshot import snapshot, unchanged
from longreach.testing.conformance.base import LENGTH, WINDOW, Check, close, first, gradients, moves, require, same
from longreach.testing.conformance.biased import written_from
from longreach.testing.conformance.positions import refused_by_apply
from longreach.testing.models import BIASED, PLACED, random_ids, tiny_encoder_decoder, tiny_model

_DECODED = random_ids(1, 12, seed=1)  # what decoders read
_SHORT = 9  # tokens that are inside every window
_LENGTHS = (LENGTH, LENGTH - 7, _SHORT)
_BRIEF = ("bart", "t5")  # families that stand for all where a check takes long
_EXACT = 1e-9  # of logits in float64


def check_pieces(method: CrossRetrieval) -> int:
    """Every token of a text is kept once, in order, from a piece that has it, and no piece is longer than the window."""
    compared = 0
    for window in (1, 2, 3, 8, 13, WINDOW):
        for length in range(window + 1, 4 * window + 3):
            pieces = method.pieces(length, window)
            kept = [token for begin, end, since, until in pieces for token in range(since, until) if begin <= token < end]
            compared += require(kept == [*range(length)], f"of {length} tokens with a window of {window}, {kept} are kept")
            longest = max(end - begin for begin, end, *_ in pieces)
            compared += require(longest <= window, f"a piece of {longest} tokens in a window of {window}")
            inside = all(begin >= 0 and end <= length for begin, end, *_ in pieces)
            compared += require(inside, f"pieces of a text of {length} tokens reach out of it: {pieces}")
    return compared


def check_texts_inside_the_window(method: CrossRetrieval) -> int:
    """What fits into the encoder's window gives the model's own logits and texts, bit for bit, padded or not."""
    compared = 0
    for family in _families(method):
        model, ids = tiny_encoder_decoder(family, window=WINDOW), random_ids(3, _window(method))
        mask = _right_padding((ids.shape[1], _SHORT, 1), ids.shape[1])
        beams = (1, 3) if family in _BRIEF else ()

        def read(model: PreTrainedModel = model, ids: Tensor = ids, mask: Tensor = mask, beams: tuple[int, ...] = beams) -> list[Tensor]:
            return [decoded(model, ids), decoded(model, ids, mask), *(written_from(model, ids, mask, num_beams=each) for each in beams)]

        stock = read()
        with apply(model, method):
            compared += sum(same(ours, wanted, family) for ours, wanted in zip(read(), stock, strict=True))
    return compared


def check_neutral_retrieval(method: CrossRetrieval) -> int:
    """A neutral setting gives the model's own logits, bit for bit."""
    model, ids = tiny_encoder_decoder(), random_ids(2, LENGTH)
    stock = decoded(model, ids)
    with apply(model, method):
        return same(decoded(model, ids), stock, "bart")


def check_retrieval(method: CrossRetrieval) -> int:
    """Logits are those of the definition in float64: pieces read alone, and for each query and head a softmax over its nearest keys."""
    compared, ids, mask = 0, random_ids(3, LENGTH), _right_padding(_LENGTHS)
    for family in _families(method):
        model = tiny_encoder_decoder(family, window=WINDOW).double()
        wanted = naive_decoded(model, method, ids, mask)
        with apply(model, method):
            for implementation in ("sdpa", "eager") if family != "led" else ("eager",):
                model.set_attn_implementation(implementation)
                compared += close(decoded(model, ids, mask), wanted, f"{family}, {implementation}", tolerance=_EXACT)
            model.set_attn_implementation("eager" if family == "led" else "sdpa")
        compared += moves(method, wanted[:1], decoded(model, ids[:1, :WINDOW]))
    return compared


def check_padded_long_texts(method: CrossRetrieval) -> int:
    """A batch, padded on either side, gives what its texts give one by one, also what is written from it."""
    compared = 0
    for family in _families(method):
        model, ids, right = tiny_encoder_decoder(family, window=WINDOW), random_ids(3, LENGTH), _right_padding(_LENGTHS)
        with apply(model, method):
            for mask in (right, right.flip(1)):
                whole = decoded(model, ids, mask)
                for row, real in enumerate(mask.bool()):
                    alone = ids[row : row + 1, real]
                    compared += close(whole[row], decoded(model, alone)[0], f"{family}, {alone.shape[1]} tokens")
            if family in _BRIEF:
                text = written_from(model, ids, right, num_beams=2)
                for row, length in enumerate(_LENGTHS):
                    alone = written_from(model, ids[row : row + 1, :length], num_beams=2)
                    compared += same(text[row], alone[0], f"{family}, {length} tokens, written")
    return compared


def check_padding_is_not_retrieved(method: CrossRetrieval) -> int:
    """What stands in the padding changes nothing, be it an id or what is not a number."""
    compared, mask = 0, _right_padding(_LENGTHS)
    for family in _families(method):
        model, ids = tiny_encoder_decoder(family, window=WINDOW), random_ids(3, LENGTH)
        other = torch.where(mask.bool(), ids, random_ids(3, LENGTH, seed=5))
        with apply(model, method):
            compared += same(decoded(model, other, mask), decoded(model, ids, mask), family)
    return compared


def check_order_of_states(method: CrossRetrieval) -> int:
    """The decoder knows a text as a set: with the encoder's states in another order, logits are the same."""
    compared, order = 0, torch.randperm(LENGTH, generator=torch.Generator().manual_seed(0))
    for family in _families(method):
        model, ids = tiny_encoder_decoder(family, window=WINDOW).double(), random_ids(2, LENGTH)
        with torch.no_grad(), apply(model, method):
            states = model.get_encoder()(input_ids=ids, return_dict=True).last_hidden_state
            straight, mixed = (
                model(encoder_outputs=(each,), decoder_input_ids=_DECODED.expand(2, -1)).logits for each in (states, states[:, order])
            )
        compared += close(mixed, straight, family, tolerance=_EXACT)
    return compared


def check_retrieval_and_caches(method: CrossRetrieval) -> int:
    """With a cache the same is written as without one, greedily and with beams; it holds what the decoder wrote alone."""
    compared = 0
    for family in _families(method):
        model, ids = tiny_encoder_decoder(family, window=WINDOW), random_ids(2, LENGTH)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        with torch.no_grad(), apply(model, method):
            for beams in (1, 3) if family in _BRIEF else ():
                without = written_from(model, ids, use_cache=False, num_beams=beams)
                compared += same(written_from(model, ids, num_beams=beams), without, f"{family}, {beams} beams")
            whole, read = decoded(model, ids), model.get_encoder()(input_ids=ids, return_dict=True)
            for begin, end in ((0, 5), (5, 6), (6, 12)):
                part = _DECODED[:, begin:end].expand(2, -1)
                logits = model(encoder_outputs=read, decoder_input_ids=part, **cache_argument(model, cache), use_cache=True).logits
                compared += close(logits, whole[:, begin:end], f"{family}, tokens {begin} to {end}")
        held = cache.self_attention_cache.get_seq_length(), cache.cross_attention_cache.get_seq_length()
        compared += require(held == (12, 0), f"{family}: {held} tokens in the caches of the decoder's own text and of the encoder's")
    return compared


def check_retrieval_gradients(method: CrossRetrieval) -> int:
    """The gradients of every weight are those of the definition."""
    compared, ids, mask = 0, random_ids(2, LENGTH), _right_padding(_LENGTHS[:2])
    for family in _BRIEF:
        model = tiny_encoder_decoder(family, window=WINDOW).double()
        wanted = gradients(model, _naive_decoded(model, method, ids, mask))
        with apply(model, method):
            ours = gradients(model, _decoded(model, ids, mask))
        for name, gradient in wanted.items():
            scale = float(gradient.abs().max())
            compared += close(ours.get(name, torch.zeros_like(gradient)), gradient, f"{family}, {name}", tolerance=1e-8 * scale + 1e-9)
    return compared


def check_retrieval_is_undone(method: CrossRetrieval) -> int:
    """After the context, also one left by an exception, everything is as it was."""
    compared = 0
    for family in _families(method):
        model, ids = tiny_encoder_decoder(family, window=WINDOW), random_ids(1, LENGTH)
        stock, before = decoded(model, ids[:, :WINDOW]), snapshot(model)
        try:
            with apply(model, method):
                decoded(model, ids)
                raise KeyError("raised to leave the context")
        except KeyError:
            compared += unchanged(before, snapshot(model), f"{family}, after an exception")
        compared += same(decoded(model, ids[:, :WINDOW]), stock, f"{family}, logits after the context")
    return compared


def check_copies_retrieve(method: CrossRetrieval) -> int:
    """A copy made inside reads on after the model has left the method, and takes none of the model's weights for its own."""
    model, ids = tiny_encoder_decoder(window=WINDOW), random_ids(2, LENGTH)
    with apply(model, method):
        wanted = decoded(model, ids)
        twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return same(decoded(twin, ids), wanted, "the copy")


def check_models_without_an_encoder_are_refused(method: CrossRetrieval) -> int:
    """A decoder by itself has nothing to retrieve for."""
    return refused_by_apply(tiny_model(), method, "it is no encoder-decoder")


def check_what_cannot_retrieve_is_refused(method: CrossRetrieval) -> int:
    """Refused in one line: weights and states of layers of a long text, a mask of other shape, and layers that run twice."""
    model, ids = tiny_encoder_decoder(window=WINDOW), random_ids(2, LENGTH)
    squared = torch.ones(2, 1, 12, LENGTH)
    tries: list[tuple[dict[str, Any], str]] = [
        ({"output_attentions": True}, "output_attentions"),
        ({"output_hidden_states": True}, "output_hidden_states"),
        ({"encoder_outputs": (torch.zeros(2, LENGTH, 32),), "attention_mask": squared}, "give [batch, tokens]"),
    ]
    compared = 0
    with apply(model, method):
        for options, says in tries:
            compared += _refused(model, ids, says, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its new name is not in all versions that are supported
            model.gradient_checkpointing_enable()
        model.train()
        compared += _refused(model, ids, "turn gradient checkpointing off")
    return compared


def _refused(model: PreTrainedModel, ids: Tensor, says: str, **options: Any) -> int:
    try:
        model(input_ids=ids, decoder_input_ids=_DECODED.expand(2, -1), use_cache=False, **options)
    except LongreachError as error:
        return require(says in str(error) and "\n" not in str(error), f"refused with other words: {error}")
    raise AssertionError(f"{says}: nothing is refused")


def _families(method: CrossRetrieval) -> tuple[str, ...]:
    return (*PLACED, *BIASED) if first(method) else _BRIEF


def _window(method: CrossRetrieval) -> int:
    return method.stated_window() or WINDOW


def _right_padding(lengths: tuple[int, ...], width: int = LENGTH) -> Tensor:
    return torch.stack([(torch.arange(width) < length).long() for length in lengths])


def _decoded(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logits [B, 12, V] of a fixed text that a decoder reads after its encoder has read `ids`."""
    found: Tensor = model(input_ids=ids, attention_mask=mask, decoder_input_ids=_DECODED.expand(len(ids), -1), use_cache=False).logits
    return found


decoded = torch.no_grad()(_decoded)


def _naive_decoded(model: Any, method: CrossRetrieval, ids: Tensor, mask: Tensor) -> Tensor:
    """`_decoded` by the definition, one text after the other, without its padding."""
    window, found = _window(method), []
    for row, real in enumerate(mask.bool()):
        text = ids[row : row + 1, real]
        if text.shape[1] <= window:
            found.append(_decoded(model, text))
            continue
        encoder, parts = model.get_encoder(), []
        for begin, end, since, until in method.pieces(text.shape[1], window):
            parts.append(encoder(input_ids=text[:, begin:end], return_dict=True).last_hidden_state[:, since - begin : until - begin])
        with _naive_attention(model, torch.cat(parts, 1), method.keys_seen(window)) as states:
            found.append(model(encoder_outputs=(states,), decoder_input_ids=_DECODED, use_cache=False).logits)
    return torch.cat(found)


naive_decoded = torch.no_grad()(_naive_decoded)


@contextmanager
def _naive_attention(model: Any, states: Tensor, count: int) -> Iterator[Tensor]:
    """Inside, cross-attention gives each query of each head the softmax over its `count` largest logits among all keys [1, S, E]."""

    def nearest(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        placed = hasattr(module, "q_proj")
        names = ("q_proj", "k_proj", "v_proj", "out_proj") if placed else ("q", "k", "v", "o")
        q, k, v = (getattr(module, name)(x)[0] for name, x in zip(names, (hidden, states, states), strict=False))
        size = q.shape[1] // 4
        scale, heads = size**-0.5 if placed else 1.0, []
        for head in range(4):
            part = slice(head * size, (head + 1) * size)
            logits = q[:, part] @ k[:, part].T * scale
            best, index = logits.topk(min(count, len(k)))
            heads.append(torch.stack([w @ v[at, part] for w, at in zip(best.softmax(-1), index, strict=True)]))
        attended = getattr(module, names[3])(torch.cat(heads, 1))[None]
        return (attended, *output[1:])

    with ExitStack() as undo:
        for name, module in model.get_decoder().named_modules():
            if isinstance(module, nn.Module) and name.endswith(("encoder_attn", "EncDecAttention")):
                undo.callback(module.register_forward_hook(nearest, with_kwargs=True).remove)
        yield states


def _retrieves(method: Method) -> bool:
    return isinstance(method, CrossRetrieval)


CHECKS = (
    *(
        Check(run=check, applies=_retrieves)
        for check in (check_pieces, check_texts_inside_the_window, check_retrieval, check_padded_long_texts, check_retrieval_gradients)
    ),
    *(
        Check(run=check, applies=_retrieves, tier="method")
        for check in (
            check_padding_is_not_retrieved,
            check_order_of_states,
            check_retrieval_and_caches,
            check_retrieval_is_undone,
            check_copies_retrieve,
            check_what_cannot_retrieve_is_refused,
        )
    ),
    Check(run=check_models_without_an_encoder_are_refused, applies=_retrieves, tier="contract"),
    Check(run=check_neutral_retrieval, applies=_retrieves, settings="NEUTRAL"),
)

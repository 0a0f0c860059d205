"""What holds for every method that the engine runs: attention policies, cache policies, and positions that depend on the length."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from longreach.attention.base import AttentionPolicy
from longreach.cache.base import BudgetWrapper, CachePolicy
from longreach.core.bands import PROBE, Band
from longreach.core.errors import LongreachError, UnsupportedError
from longreach.core.memory import View
from longreach.core.method import Method
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.positions.base import PositionsMethod
from longreach.testing.conformance._snapshot import snapshot, unchanged
from longreach.testing.conformance.base import (
    LENGTH,
    PROMPT,
    WINDOW,
    Check,
    Tier,
    cached_logits,
    close,
    gradients,
    left_padding,
    logits,
    model_for,
    moves,
    new_model,
    require,
    rounds,
    row_logits,
    same,
    shapes,
    written,
)
from longreach.testing.models import VOCABULARY, random_ids
from longreach.testing.naive import naive_logits

# Grouped-query, multi-head with partial rotary (a quarter of each head), sliding layers among full ones, soft-capped logits, learned sinks.
SHAPES = ("llama", "gpt_neox", "qwen2_mixed", "gemma2", "gpt_oss")
_PADDED = (LENGTH, LENGTH - 5, 20)  # real tokens of the rows of a left-padded batch
_NEUTRAL_WINDOW = 128  # of the models that neutral settings must not change: longer than LENGTH


def check_changes_the_model(method: Method) -> int:
    """Every setting but the neutral ones changes the logits: what the other checks compare is the method, not the bare model."""
    model, ids = model_for(method), random_ids(1, LENGTH)
    stock = logits(model, ids)
    with apply(model, method):
        return moves(method, logits(model, ids), stock)


def check_neutral(method: Method) -> int:
    """A setting that changes nothing gives the model's own logits."""
    compared = 0
    for family in _families(method, "llama", "llama_mha", "qwen2_mixed"):
        model, ids = model_for(method, family, _NEUTRAL_WINDOW), random_ids(2, LENGTH)
        stock = logits(model, ids)
        with apply(model, method):
            compared += close(logits(model, ids), stock, f"{family}, at once")
            compared += close(cached_logits(model, ids, (30, 1, 19)), stock, f"{family}, through a cache")
    return compared


def check_reference(method: Method) -> int:
    """On every shape of model, values are those of the method's definition in float64: at once, in chunks, left-padded, and both."""
    ids, mask = random_ids(2, LENGTH), left_padding((LENGTH - 11, LENGTH))
    real, whole = mask.bool(), ids[1:]  # the second row has no padding
    compared = 0
    for family in _families(method, *SHAPES):
        model = model_for(method, family)
        with torch.no_grad():
            wanted = naive_logits(model, (method,), whole)
            padded = naive_logits(model, (method,), ids[:1], real[:1])
        wanted_padded = torch.cat([padded, wanted])[real]
        with apply(model, method):
            compared += close(logits(model, whole), wanted, f"{family}, at once")
            compared += close(cached_logits(model, whole, (13, 1, 16, 20)), wanted, f"{family}, in chunks")
            compared += close(logits(model, ids, mask)[real], wanted_padded, f"{family}, left-padded")
            # Chunks of 7: the first holds nothing but padding in the first row, the second begins in its padding.
            compared += close(cached_logits(model, ids, [7] * 8, mask)[real], wanted_padded, f"{family}, left-padded in chunks")
    return compared


def check_gradients(method: Method) -> int:
    """The gradients of every weight are those of the method's definition in float64, with left padding."""
    compared = 0
    ids, mask = random_ids(2, LENGTH), left_padding((LENGTH - 11, LENGTH))
    for family in _families(method, "llama", "gemma2", "gpt_oss"):
        model = model_for(method, family)
        with apply(model, method):
            ours = gradients(model, model(ids, attention_mask=mask, use_cache=False).logits, mask)
        wanted = gradients(model, naive_logits(model, (method,), ids, mask.bool()), mask)
        for name, gradient in wanted.items():
            scale = float(gradient.abs().max())
            compared += close(ours[name], gradient, f"{family}, gradient of {name}", tolerance=2e-4 * scale + 1e-6)
    return compared


def check_causality(method: Method) -> int:
    """Changing a token changes what comes after it and nothing before it.

    In float64, for what is computed together may hang on later tokens, and with it the last digits of a sum.
    """
    model, ids = copy.deepcopy(model_for(method)).double(), random_ids(1, LENGTH)
    compared = 0
    with apply(model, method):
        before = logits(model, ids)
        for place in (1, 17, LENGTH - 1):
            other = ids.clone()
            other[:, place] = (ids[:, place] + 1) % VOCABULARY
            after = logits(model, other)
            compared += close(after[:, :place], before[:, :place], f"tokens before {place}", tolerance=1e-9)
            require(float((after - before)[:, place].abs().max()) > 1e-3, f"token {place} does not see itself")
    return compared


def check_chunks(method: Method) -> int:
    """Prefill in chunks gives what prefill at once gives, long enough for every buffer to grow."""
    ids = random_ids(2, 150)
    compared = 0
    for family in _families(method, "llama", "qwen2_mixed"):
        model = model_for(method, family)
        with apply(model, method):
            wanted = logits(model, ids)
            for sizes in ((13, 9, 1, 17, 70, 40), (64, 64, 21, 1))[: 2 if family == "llama" else 1]:
                compared += close(cached_logits(model, ids, sizes), wanted, f"{family}, chunks of {sizes}")
    return compared


def check_decoding(method: Method) -> int:
    """Decoding token by token through the cache, from the first token on or after a prompt, gives what one pass over the whole gives."""
    compared, prompts = 0, {"llama": 1, "gpt_neox": PROMPT + 10}
    for family in _families(method, *prompts):
        model, ids, prompt = model_for(method, family), random_ids(2, LENGTH), prompts[family]
        with apply(model, method):
            compared += close(cached_logits(model, ids, (prompt, *[1] * (LENGTH - prompt))), logits(model, ids), family)
    return compared


def check_left_padding(method: Method) -> int:
    """A left-padded batch gives what its rows give one by one: at once, in chunks, and written greedily."""
    model, ids, mask = model_for(method), random_ids(len(_PADDED), LENGTH), left_padding(_PADDED)
    compared = 0
    with apply(model, method):
        at_once, in_chunks = logits(model, ids, mask), cached_logits(model, ids, [16] * 4, mask)
        tokens, tokens_chunked = written(model, ids, mask), written(model, ids, mask, prefill_chunk_size=16)
        for row, length in enumerate(_PADDED):
            alone = torch.cat([ids[row, -length:], tokens[row]])[None]
            wanted = row_logits(model, alone, LENGTH - length)[0]
            likeliest = wanted.index_fill(-1, torch.tensor(model.config.eos_token_id), -torch.inf).argmax(-1)
            compared += close(at_once[row, -length:], wanted[:length], f"row {row}")
            compared += close(in_chunks[row, -length:], wanted[:length], f"row {row} in chunks")
            compared += same(tokens[row], likeliest[length - 1 : -1], f"row {row}, written")
            compared += same(tokens_chunked[row], tokens[row], f"row {row}, written after prefill in chunks")
    return compared


def check_lengths(method: Method) -> int:
    """Inputs of 1 token, of one less and one more than where the method changes its behaviour, and of twice that."""
    model, lengths = model_for(method), sorted(set(_lengths(method)))
    longest = random_ids(1, lengths[-1])
    with torch.no_grad():
        wanted = naive_logits(model, (method,), longest)  # a definition goes by what a token sees, so it holds for what begins the text
    compared = 0
    with apply(model, method):
        for length in lengths:
            ids = longest[:, :length]
            compared += close(logits(model, ids), wanted[:, :length], f"{length} tokens")
            sizes = (length - 1, 1) if length > 1 else (1,)
            compared += close(cached_logits(model, ids, sizes), wanted[:, :length], f"{length} tokens, the last decoded")
    return compared


def _edges(method: Method) -> set[int]:
    """Distances and indices at which the method changes its behaviour: of its bands, and its whole-number settings."""
    layer = replace(PROBE, trained_window=WINDOW)
    views: tuple[View, ...] = getattr(method, "views", lambda _: None)(layer) or ()
    found = [
        edge
        for band in views
        if isinstance(band, Band)
        for edge in (
            band.lo * band.chunk, None if band.reach is None else band.reach + 1, band.sinks, band.after, band.queries.edge,
            band.keys.edge,
        )
    ]  # fmt: skip
    found += [value for setting in fields(method) if isinstance(value := getattr(method, setting.name), int)]
    return {edge for edge in found if edge} or {WINDOW}


def _lengths(method: Method) -> Iterator[int]:
    edges = _edges(method)
    yield from (1, WINDOW, WINDOW + 1, 2 * max(edges) + 1)
    for edge in edges:
        yield from (max(1, edge - 1), edge, edge + 1)


def check_undo(method: Method) -> int:
    """After the context, also one left by an exception in the middle of a forward pass, everything is as it was."""
    model, ids = new_model(method), random_ids(1, 40)
    stock, before = logits(model, ids), snapshot(model)
    with apply(model, method):
        logits(model, ids)
    compared = unchanged(before, snapshot(model), "after the context")
    try:
        with apply(model, method):
            model.model.layers[1].register_forward_hook(_interrupt)
            logits(model, ids)
    except KeyError:
        model.model.layers[1]._forward_hooks.popitem()
        compared += unchanged(before, snapshot(model), "after an exception")
    else:
        require(False, "the exception did not get out of the context")
    return compared + same(logits(model, ids), stock, "logits after the context")


def _families(method: Method, *families: str) -> list[str]:
    """The shapes of model to check on."""
    return [family for family in shapes(method, *families) if not (rounds(method) and family == "gpt_oss")]  # that has no float64


def _interrupt(module: nn.Module, args: Any, output: Any) -> None:
    raise KeyError("raised to leave the context")


def check_same_seed(method: Method) -> int:
    """Sampling twice with one seed writes the same; with another seed it does not."""
    model, ids = model_for(method), random_ids(2, LENGTH)
    tokens = []
    with apply(model, method):
        for seed in (7, 7, 8):
            torch.manual_seed(seed)
            tokens.append(written(model, ids, do_sample=True, top_k=0))
    require(not torch.equal(tokens[0], tokens[2]), "another seed writes the same")
    return same(tokens[1], tokens[0], "the same seed")


def check_bounded_memory(method: Method) -> int:
    """After 40 windows the cache holds no more bytes than after 20, and knows how many tokens it has seen."""
    model, window, step = model_for(method), max(_edges(method)), 8
    ids = random_ids(1, (40 * window + step - 1) // step * step)
    past = DynamicCache(config=model.config)
    held: dict[int, int] = {}
    compared = 0
    with apply(model, method), torch.no_grad():
        for end in range(step, ids.shape[1] + 1, step):
            last = model(ids[:, end - step : end], **cache_argument(model, past), use_cache=True).logits
            compared += require(past.get_seq_length() == end, f"{end} tokens were seen, the cache says {past.get_seq_length()}")
            held[end] = _bytes_held(past)
        compared += close(last, logits(model, ids)[:, -step:], "after 40 windows")
    early, late = max(held[end] for end in held if end <= 20 * window), held[ids.shape[1]]
    return compared + require(0 < late <= early, f"{late} bytes after 40 windows, {early} after 20")


def _bytes_held(past: DynamicCache) -> int:
    """Bytes of all tensors that can be reached from the cache's layers, each storage once."""
    storages: dict[int, int] = {}
    visited: set[int] = set()
    pending: list[Any] = list(past.layers)
    while pending:
        thing = pending.pop()
        if isinstance(thing, Tensor):
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
        elif id(thing) not in visited and not isinstance(thing, nn.Module | type):
            visited.add(id(thing))
            pending += _inside(thing)
    return sum(storages.values())


def _inside(thing: Any) -> Iterable[Any]:
    if isinstance(thing, dict):
        return thing.values()
    return thing if isinstance(thing, list | tuple) else getattr(thing, "__dict__", {}).values()


def check_beams(method: Method) -> int:
    """Beam search with several returned sequences and left padding writes what it writes without any cache."""
    model, ids, mask = model_for(method), random_ids(2, LENGTH), left_padding((LENGTH, 31))
    with apply(model, method):
        search = {"tokens": 4, "num_beams": 2, "num_return_sequences": 2}
        return same(written(model, ids, mask, **search), written(model, ids, mask, use_cache=False, **search), "beams")


def check_prompt_lookup(method: Method) -> int:
    """Assisted decoding, which takes wrong guesses back out of the cache, writes what plain decoding writes."""
    ids = random_ids(1, 12).repeat(1, 4)  # repeats, so that there is something to look up
    compared = 0
    for family in _families(method, "llama", "qwen2_mixed"):
        model = model_for(method, family)
        with apply(model, method):
            compared += same(written(model, ids, tokens=12, prompt_lookup_num_tokens=4), written(model, ids, tokens=12), family)
    return compared


def check_lost_tokens_stay_lost(method: Method) -> int:
    """A cache that forgets takes back the tokens of the last pass; asked for more it says that it cannot, and gives no wrong answers."""
    model, ids = model_for(method), random_ids(1, 3 * max(_edges(method)) + 2)
    past = DynamicCache(config=model.config)
    with apply(model, method), torch.no_grad():
        wanted = logits(model, ids)[:, -2:]
        model(ids[:, :-2], **cache_argument(model, past), use_cache=True)
        wrong = (ids[:, -2:] + 1) % VOCABULARY
        model(wrong, **cache_argument(model, past), use_cache=True)
        try:
            past.crop(-4)
        except LongreachError as error:
            require("forgets" in str(error), f"unclear: {error}")
            past.crop(-2)
            return close(model(ids[:, -2:], **cache_argument(model, past), use_cache=True).logits, wanted, "after taking back two tokens")
    return require(False, "tokens were taken back from a cache that forgets")


def check_deepcopy(method: Method) -> int:
    """A copy of the model made inside the context works under the method, and shares nothing with the original."""
    model, ids = new_model(method), random_ids(2, LENGTH)
    with apply(model, method):
        wanted = logits(model, ids)
        twin = copy.deepcopy(model)
        compared = close(cached_logits(twin, ids, (20, 30)), wanted, "the copy, through a cache")
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        compared += same(logits(model, ids), wanted, "the original after its copy changed")
    return compared


def check_no_nesting(method: Method) -> int:
    """Applying inside an applied method is refused, and the outer one stays."""
    model, ids = model_for(method), random_ids(1, 40)
    with apply(model, method):
        wanted = logits(model, ids)
        try:
            with apply(model, method):
                pass
        except UnsupportedError as error:
            require(str(method) in str(error), f"unclear: {error}")
            return same(logits(model, ids), wanted, "after the refusal")
    return require(False, "a method was applied twice")


def check_old_caches_are_refused(method: Method) -> int:
    """A cache filled under the method is refused after the context, and a cache filled before it inside; both by a clear error."""
    model, ids = model_for(method), random_ids(1, 20)
    inside, outside = DynamicCache(config=model.config), DynamicCache(config=model.config)
    with torch.no_grad():
        model(ids, **cache_argument(model, outside), use_cache=True)
        with apply(model, method):
            model(ids, **cache_argument(model, inside), use_cache=True)
            compared = _refused(model, ids, outside)
        return compared + _refused(model, ids, inside)


def _refused(model: PreTrainedModel, ids: Tensor, past: DynamicCache) -> int:
    try:
        model(ids[:, :1], **cache_argument(model, past), use_cache=True)
    except LongreachError as error:
        return require("start with a new cache" in str(error), f"unclear: {error}")
    return require(False, "the cache was used")


def runs(method: Method) -> bool:
    """Not what divides the budget of another policy, which is checked on that."""
    if isinstance(method, PositionsMethod):
        return method.needs_engine
    return isinstance(method, AttentionPolicy | CachePolicy) and not isinstance(method, BudgetWrapper)


def _suite(*checks: Callable[[Any], int], tier: Tier) -> tuple[Check, ...]:
    return tuple(Check(run=check, applies=runs, tier=tier) for check in checks)


CHECKS = (
    *_suite(
        check_changes_the_model, check_reference, check_gradients, check_causality, check_chunks, check_decoding, check_left_padding,
        check_lengths, tier="example",
    ),
    *_suite(
        check_undo, check_same_seed, check_beams, check_prompt_lookup, check_deepcopy, check_old_caches_are_refused, tier="method",
    ),
    *_suite(check_no_nesting, tier="contract"),
    Check(run=check_neutral, applies=runs, settings="NEUTRAL"),
    Check(run=check_bounded_memory, applies=lambda method: runs(method) and method.info.bounded_memory, tier="method"),
    Check(run=check_lost_tokens_stay_lost, applies=lambda method: runs(method) and method.info.forgets, tier="method"),
)  # fmt: skip

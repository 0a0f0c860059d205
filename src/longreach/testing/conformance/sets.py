"""What holds for every method that has parts of a text read side by side."""

import copy
import gc
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from longreach.attention.base import ReadsSets
from longreach.core.errors import InputError, LongreachError
from longreach.core.method import Method
from longreach.decoding.reading import new_cache, prefill
from longreach.decoding.sets import PartSet, read_sets
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.sets import cache_for_sets
from longreach.testing.conformance._snapshot import snapshot, unchanged
from longreach.testing.conformance.base import LENGTH, Check, cached_logits, close, first, logits, require, same, written
from longreach.testing.conformance.positions import refused_by_apply
from longreach.testing.models import random_ids, tiny_biased, tiny_learned, tiny_model

_PARTS = (9, 2, 14)  # tokens: longer and shorter than the windows of layers that have one
_BEFORE, _BETWEEN, _AFTER = 11, 3, 12
_NEW = 3
_EXACT = 1e-9
_FAMILIES = ("llama", "gemma3", "phi3", "gpt2")  # the second has layers with a window, the last a table of positions


def check_marks(method: ReadsSets) -> int:
    """Marks come out of a text and nothing else does; a text that is marked wrongly is refused in one line."""
    mark = _marks(method)
    text = mark("a {b|c |ddd} e{f|g}")
    compared = require(method.parts(text) == ("a ", ("b", "c ", "ddd"), " e", ("f", "g")), f"parts: {method.parts(text)}")
    compared += require(method.parts("no marks") == ("no marks",), "a text without marks")
    compared += require(method.parts(mark("{a}")) == (("a",),), "a set alone")
    for wrong in ("a {b|c", "a b|c} d", "a {b {c} d} e", "a {b||c} d", "a {} b", "a | b"):
        try:
            raise AssertionError(f"{wrong}: not refused, {method.parts(mark(wrong))}")
        except InputError as error:
            compared += require("\n" not in str(error), f"{wrong}: {error}")
    return compared


def check_order_is_not_seen(method: ReadsSets) -> int:
    """Whatever the order of parts, what follows gets the same logits, float64, and the same text is written."""
    compared = 0
    for model in _models(method):
        orders = permutations(range(len(_PARTS))) if model.config.model_type == "llama" else ((0, 1, 2), (2, 1, 0))
        with apply(model, method):
            one, *others = [_continued(model, _prompt(order)) for order in orders]
        for other in others:
            compared += close(other, one, _name(model), tolerance=_EXACT)
            compared += same(other.argmax(-1), one.argmax(-1), f"{_name(model)}, written")
        require(float((others[0] - _continued(model, _prompt(range(len(_PARTS)), seed=1))).abs().max()) > 0.1, "parts make no difference")
    return compared


def check_definition_of_sets(method: ReadsSets) -> int:
    """Logits are those of one pass of the plain model under a mask and positions that say who sees whom, and where."""
    compared = 0
    for model in _models(method):
        ids, sets = _prompt(range(len(_PARTS)))
        with apply(model, method):
            ours = _continued(model, (ids, sets))
        written_ids = ours[:-1].argmax(-1)[None]
        whole = torch.cat([ids, written_ids], 1)
        wanted = _by_mask(model, whole, sets)[0, ids.shape[1] - 1 :]
        compared += close(ours, wanted, _name(model), tolerance=_EXACT)
    return compared


def check_one_part_is_a_text(method: ReadsSets) -> int:
    """A set of one part gives what the same pieces give without a set, bit for bit."""
    compared, ids = 0, random_ids(1, _BEFORE + 7 + _AFTER)
    for model in _models(method):
        cache = new_cache(model)
        wanted = [prefill(model, part, cache=cache) for part in ids.split((_BEFORE, 7, _AFTER), 1)][-1]
        with apply(model, method):
            cache = cache_for_sets()
            ours = read_sets(ids, (PartSet(_BEFORE, (7,)),), cache, lambda part: prefill(model, part, cache=cache))  # noqa: B023
        compared += same(ours, wanted, _name(model))
    return compared


def check_texts_without_sets(method: ReadsSets) -> int:
    """They are read and gone on with as without the method, bit for bit."""
    compared, ids = 0, random_ids(2, LENGTH)
    for model in _models(method):

        def read(model: PreTrainedModel) -> list[Tensor]:
            return [logits(model, ids), cached_logits(model, ids, (20, 1, LENGTH)), written(model, ids)]

        wanted = read(model)
        with apply(model, method):
            for ours, stock in zip(read(model), wanted, strict=True):
                compared += same(ours, stock, _name(model))
    return compared


def check_sets_are_undone(method: ReadsSets) -> int:
    """After the context, also one left by an exception, everything is as it was; a copy made inside goes on with it."""
    compared, model, prompt = 0, tiny_model("gemma3"), _prompt(range(len(_PARTS)))
    gc.collect()
    before, twin = snapshot(model), None
    try:
        with apply(model, method):
            ours, twin = _continued(model, prompt), copy.deepcopy(model)
            raise KeyError("raised to leave the context")
    except KeyError:
        compared += same(_continued(twin, prompt), ours, "a copy")
        del twin
        gc.collect()  # it takes what it needs out of the registries when it goes
        compared += unchanged(before, snapshot(model), "after an exception")
    return compared


def check_what_knows_the_order_is_refused(method: ReadsSets) -> int:
    """Methods that compute attention themselves, and models that read no text token by token, are refused."""
    compared = 0
    for other in ("sinks:window_size=16", "padding_free"):
        try:
            with apply(tiny_model(), f"{method.spec}+{other}"):
                raise AssertionError(f"{other}: not refused")
        except LongreachError as error:
            compared += require("keep one of them" in str(error), f"refused as {error}")
    compared += refused_by_apply(tiny_learned("bert"), method, "causal language model")
    return compared + refused_by_apply(tiny_biased(), method, "encoder-decoder")


def _models(method: ReadsSets) -> list[PreTrainedModel]:
    """In float64: of all families for the first setting in a method's file, Llama for the others."""
    return [(tiny_learned if name == "gpt2" else tiny_model)(name).double() for name in (_FAMILIES if first(method) else _FAMILIES[:1])]


def _marks(method: ReadsSets) -> Any:
    """What writes the marks of a method for {, | and }."""
    settings: Any = method
    marks = {"{": settings.open, "|": settings.between, "}": settings.close}
    return lambda text: "".join(marks.get(letter, letter) for letter in text)


def _prompt(order: Sequence[int], seed: int = 0) -> tuple[Tensor, tuple[PartSet, ...]]:
    """Ids [1, T] with two sets, whose parts stand in this order, and the sets. Args: seed: of the parts."""
    rest, parts = random_ids(1, _BEFORE + _BETWEEN + _AFTER), random_ids(1, 2 * sum(_PARTS), seed=seed + 7).split(_PARTS * 2, 1)
    before, between, after = rest.split((_BEFORE, _BETWEEN, _AFTER), 1)
    one, two = [[parts[each + begin] for each in order] for begin in (0, len(_PARTS))]
    lengths = tuple(_PARTS[each] for each in order)
    start = _BEFORE + sum(_PARTS) + _BETWEEN
    return torch.cat([before, *one, between, *two, after], 1), (PartSet(_BEFORE, lengths), PartSet(start, lengths))


def _continued(model: Any, prompt: tuple[Tensor, Sequence[PartSet]]) -> Tensor:
    """Logits [_NEW, V] of the likeliest tokens after a prompt with sets, which is read in chunks."""
    cache: Cache = cache_for_sets()
    found = [read_sets(*prompt, cache, lambda part: prefill(model, part, cache=cache, chunk_size=16))]
    while len(found) < _NEW:
        found.append(prefill(model, found[-1].argmax(-1, keepdim=True), cache=cache))
    return torch.cat(found)


@torch.no_grad()
def _by_mask(model: PreTrainedModel, ids: Tensor, sets: Sequence[PartSet]) -> Tensor:
    """The definition: logits [1, T, V] of one pass under a mask [1, 1, T, T], and positions."""
    total = ids.shape[1]
    seen = torch.ones(total, total, dtype=torch.bool).tril()
    positions = torch.arange(total)
    for each in sets:
        ends = torch.tensor(each.lengths).cumsum(0) + each.start
        for end, length in zip(ends.tolist(), each.lengths, strict=True):
            positions[end - length : end] = positions[each.start] + torch.arange(length)
            seen[end - length : end, each.start : end - length] = False
        positions[int(ends[-1]) :] -= each.saved
    config: Any = model.config.get_text_config()
    mask: Any = seen[None, None]
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        near = positions[:, None] - positions < config.sliding_window
        mask = {"full_attention": mask, "sliding_attention": mask & near}
    out = model(ids, attention_mask=mask, position_ids=positions[None], **cache_argument(model, None), use_cache=False)
    found: Tensor = out.logits
    return found


def _name(model: PreTrainedModel) -> str:
    return str(model.config.model_type)


def _has_sets(method: Method) -> bool:
    return isinstance(method, ReadsSets)


CHECKS = (
    *(
        Check(run=check, applies=_has_sets)
        for check in (check_marks, check_order_is_not_seen, check_definition_of_sets, check_one_part_is_a_text)
    ),
    Check(run=check_sets_are_undone, applies=_has_sets, tier="method"),
    Check(run=check_texts_without_sets, applies=_has_sets, settings="NEUTRAL"),
    Check(run=check_what_knows_the_order_is_refused, applies=_has_sets, tier="contract"),
)

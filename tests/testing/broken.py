"""What breaks every shared check: a method or a helper that is wrong where the check looks, so that it has to say so.

Longer than 400 lines: it is one table, check -> what breaks it, and what stands in it.
"""

import itertools
import random
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch

from longreach.attention.base import AttentionPolicy, Scales
from longreach.attention.batching.padding_free import PaddingFree
from longreach.attention.cross.unlimiformer import Unlimiformer
from longreach.attention.encoder.attendre import Attendre
from longreach.attention.encoder.attention_alignment import AttentionAlignment
from longreach.attention.exact.chunked import Chunked
from longreach.attention.placement.self_extend import SelfExtend
from longreach.attention.placement.set_based import SetBased
from longreach.cache.eviction.ada import Ada
from longreach.core.method import MethodInfo
from longreach.engine.apply import apply
from longreach.engine.rows import stack_rows
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.text_task import TextTask
from longreach.positions.scaling.linear import Linear
from longreach.positions.tables.interpolated_positions import InterpolatedPositions
from longreach.testing.conformance.base import cached_logits
from longreach.testing.models import tiny_biased, tiny_encoder_decoder, tiny_learned
from longreach.testing.scripted import ScriptedWriter
from longreach.training.samplers.randomized import Randomized
from longreach.workflows.base import ReadingWorkflow, WritingWorkflow
from longreach.workflows.desk import Note
from longreach.workflows.output_length import words_in
from longreach.workflows.spans import Span
from longreach.workflows.wording import NOTES


@dataclass(frozen=True, kw_only=True)
class Idle(AttentionPolicy):
    """Does nothing, and does not say so."""

    info = MethodInfo(title="", paper="")


class OffByOne(SelfExtend):
    """Its bands are not those of its reference."""

    def bands(self, layer):
        near, far = super().bands(layer)
        return replace(near, hi=near.hi + 1), replace(far, lo=far.lo + 1)


class NeverForgets(SelfExtend):
    """Says that its memory is bounded, and keeps everything."""

    info = replace(SelfExtend.info, bounded_memory=True)


class ByCall(Idle, Scales):
    """Its logits depend on how many tokens come at once."""

    def temperature(self, t, layer):
        return torch.full_like(t, 1.0 + 0.2 * t.shape[1], dtype=torch.float32)


class ByRow(Idle, Scales):
    """Its logits depend on the place in the batch."""

    def temperature(self, t, layer):
        return (1.0 + torch.arange(t.shape[0]).float()[:, None]).expand(t.shape)


class ByMood(Idle, Scales):
    """Its logits are different every time, and never in the same order again."""

    calls = itertools.count()

    def temperature(self, t, layer):
        return torch.full_like(t, random.Random(next(self.calls)).uniform(-8, 8), dtype=torch.float32)


class WrongShape(Linear):
    """Its frequencies are not what a rotary embedding holds."""

    def inv_freq(self, rope, seq_len):
        return rope.inv_freq().double(), 1.0


class WrongExport(Linear):
    """What it writes is not what it does."""

    def rope_parameters(self, rope):
        return {**super().rope_parameters(rope), "factor": self.factor * 2}


class Stuck(Randomized):
    """One token too few, all of them at one and the same place."""

    def sample(self, rng, geometry):
        return np.zeros(geometry.seq_len, dtype=int), np.full(geometry.seq_len - 1, 7)


@dataclass(frozen=True, kw_only=True)
class Careless(TextTask):
    """Passages by chance and too short, evidence that is nowhere, and marks that hang on nothing but spaces."""

    info = MethodInfo(title="Careless", paper="none")
    needs_text = False

    def passage(self, space):
        ask = Ask(text="What?", right="it", choices=("it", "that"), evidence=("nowhere",))
        return Passage(text=str(random.random()), asks=(ask,))

    def mark(self, ask, written):
        return float(written != f" {ask.right}\n")

    def marks(self, ask, written):
        return ()

    def guess(self, ask, rng):
        return ask.right


@dataclass(frozen=True, kw_only=True)
class NeverReads(ReadingWorkflow):
    """Forgets the task, asks more in each run than in the one before, and answers from what it never read."""

    info = MethodInfo(title="NeverReads", paper="none")
    runs = itertools.count(1)

    def read(self, desk):
        for _ in range(next(self.runs)):
            desk.ask(str(random.random()), NOTES, most=8, role="notes")
        return Note(text=str(random.random()), spans=(Span(0, 0, 1),))


@contextmanager
def leaking(model, method):
    """Leaves an attribute behind."""
    with apply(model, method):
        try:
            yield model
        finally:
            model.model.layers[0].self_attn.left_behind = True


class Outside(InterpolatedPositions):
    """Its places are not in the table."""

    def places(self, window):
        return super().places(window) + window


def forgetting_where_rows_begin(into, caches):
    padding = stack_rows(into, caches)
    for layer in into.layers:
        layer.stream.start = [0] * len(caches)
    return padding


@contextmanager
def leaking_from_a_table(model, method):
    """Leaves an attribute behind."""
    with apply(model, method):
        try:
            yield model
        finally:
            model.left_behind = True


def by_size(model, ids, sizes, mask=None):
    return cached_logits(model, ids, sizes, mask) + len(list(sizes))


def by_row(model, ids, **inputs):
    return torch.arange(len(ids)).float()[:, None, None] + ids[..., None] + len(ids)


def by_call(model, ids, mask=None, **inputs):
    return ids[..., None] + float(next(ByMood.calls))


def of_the_last_token(model, ids, **inputs):
    return ids[:, -1:, None].expand(*ids.shape, 1).float()


def sees_the_last_token(model, ids, mask=None):
    return model(ids, attention_mask=mask, use_cache=False).logits.detach() + ids[:, -1:, None]


class ByLuck(AttentionAlignment):
    """Its temperature is another one every time, for short texts, too."""

    def temperature_at(self, length, window):
        return 1.5 + next(ByMood.calls) % 7


@contextmanager
def leaking_from_an_encoder(model, method):
    """Leaves an attribute behind."""
    with apply(model, method):
        try:
            yield model
        finally:
            model.get_encoder().left_behind = True


def by_cache(model, ids, mask=None, use_cache=True, **options):
    return ids + use_cache


def by_padding(model, ids, mask=None):
    return ids[..., None] + float(mask is not None)


class Loses(PaddingFree):
    """It loses a text."""

    def rows(self, lengths):
        return (tuple(range(len(lengths) - 1)),)


def by_turn(model, ids, mask=None, labels=None):
    return {"weight": torch.tensor([float(next(ByMood.calls))])}


def of_the_turn(model, ids, mask, **options):
    return ids + next(ByMood.calls)


class Swallows(SetBased):
    """It loses what stands behind the last set."""

    def parts(self, text):
        return super().parts(text)[:-1]


def by_order(model, prompt):
    return prompt[0][0, 11:16, None].double()


class Forgetful(Attendre):
    """Its last queries never attend."""

    def steps(self, length):
        return super().steps(length)[:-1]


class Gaps(Unlimiformer):
    """It loses the end of a text."""

    def pieces(self, length, window):
        return super().pieces(length, window)[:-1]


class ByLot(Unlimiformer):
    """How many keys are seen is another number every time."""

    def keys_seen(self, window):
        return 3 + next(ByMood.calls) % 11


@contextmanager
def of_the_begin(model, method):
    """Shows the decoder the first states alone."""

    def cut(module, args, kwargs):
        return args, {**kwargs, "encoder_hidden_states": kwargs["encoder_hidden_states"][:, :40]}

    with apply(model, method):
        hook = model.get_decoder().register_forward_pre_hook(cut, with_kwargs=True)
        yield model
        hook.remove()


@dataclass(frozen=True, kw_only=True)
class Scrawl(WritingWorkflow):
    """Forgets the task, asks something else every time, asks more the more it gets, and keeps nothing of what it got."""

    info = MethodInfo(title="", paper="")

    def words_meant(self, task):
        return 100

    def write(self, desk):
        for _ in range(4):
            note = desk.ask(str(next(ByMood.calls)), "Write about 20 words.", "Text:", most=16, role="text")
            if not words_in(note.text):
                break
        yield from ()


class Secretive(ScriptedWriter):
    """Does not say that its answers were cut."""

    def ask(self, request):
        return replace(super().ask(request), finish_reason="stop")


LONGER = InterpolatedPositions(factor=2)
SHARPER = AttentionAlignment(temperature=0.7)
WAITING = Attendre(budget=20, delay=8, chunk=4)
SETTING = SelfExtend(neighbours=16, group=4)
APPLIES_NOTHING = {"apply": lambda model, method: nullcontext(model)}
RESTORES_NOTHING = {"restore": lambda cache, taken: None}
# check -> (the setting it is run on, {what is replaced in the check's own module: by what})
BROKEN = {
    "changes_the_model": (Idle(), {}),
    "neutral": (SETTING, {}),
    "reference": (OffByOne(neighbours=10, group=7), {}),
    "gradients": (OffByOne(neighbours=10, group=7), {}),
    "lengths": (OffByOne(neighbours=10, group=7), {}),
    "skipping_positions": (OffByOne(neighbours=10, group=7), {}),
    "skipping_is_refused": (SETTING, {}),
    "causality": (SETTING, {"logits": sees_the_last_token}),
    "chunks": (ByCall(), {}),
    "decoding": (ByCall(), {}),
    "left_padding": (ByRow(), {}),
    "undo": (SETTING, {"apply": leaking}),
    "same_seed": (ByMood(), {}),
    "bounded_memory": (NeverForgets(neighbours=4, group=4), {}),
    "beams": (SETTING, {}),
    "prompt_lookup": (SETTING, {}),
    "lost_tokens_stay_lost": (SETTING, {}),
    "deepcopy": (SETTING, {"copy": type("NoCopy", (), {"deepcopy": staticmethod(lambda model: model)})}),
    "snapshots": (SETTING, RESTORES_NOTHING),
    "snapshots_of_plain_caches": (Linear(factor=2), RESTORES_NOTHING),
    "alone_it_is_refused": (Ada(), APPLIES_NOTHING),
    "no_nesting": (SETTING, APPLIES_NOTHING),
    "side_by_side": (SETTING, {"stack_rows": forgetting_where_rows_begin}),
    "old_caches_are_refused": (SETTING, APPLIES_NOTHING),
    "frequencies": (WrongShape(factor=2), {}),
    "neutral_frequencies": (Linear(factor=2), {}),
    "neutral_logits": (Linear(factor=2), {}),
    "moves_logits": (WrongExport(factor=1), {}),
    "undone": (Linear(factor=2), {"apply": leaking}),
    "export": (WrongExport(factor=2), {}),
    "export_of_nested": (Linear(factor=2), APPLIES_NOTHING),
    "export_is_refused": (Linear(factor=2), {}),
    "scaled_models": (Linear(factor=2), APPLIES_NOTHING),
    "other_positions_are_refused": (Linear(factor=2), APPLIES_NOTHING),
    "places": (Outside(factor=2), {}),
    "neutral_table": (LONGER, {}),
    "table_is_read": (LONGER, APPLIES_NOTHING),
    "table_is_undone": (LONGER, {"apply": leaking_from_a_table}),
    "table_and_padding": (LONGER, {"outputs": by_row}),
    "table_and_causality": (LONGER, {"outputs": of_the_last_token}),
    "table_and_chunks": (LONGER, {"cached_logits": by_size}),
    "table_export": (LONGER, {"outputs": by_call}),
    "rotary_models_are_refused": (LONGER, {"tiny_model": tiny_learned}),
    "neutral_temperature": (SHARPER, {}),
    "temperature_is_read": (SHARPER, APPLIES_NOTHING),
    "short_texts_are_left_alone": (ByLuck(temperature=1), {}),
    "padded_texts": (SHARPER, {"decoded": by_padding}),
    "writing_with_a_cache": (SHARPER, {"written_from": by_cache}),
    "temperature_is_undone": (SHARPER, {"apply": leaking_from_an_encoder}),
    "temperature_and_gradients": (SHARPER, APPLIES_NOTHING),
    "copies_have_the_temperature": (SHARPER, {"copy": type("Loaded", (), {"deepcopy": staticmethod(lambda model: tiny_biased())})}),
    "decoders_are_refused": (SHARPER, {"tiny_model": tiny_biased}),
    "rows": (Loses(), {}),
    "packed_batches": (PaddingFree(), {"_outputs": by_call}),
    "batches_without_padding": (PaddingFree(), {"_outputs": by_call}),
    "padding_is_not_read": (PaddingFree(), APPLIES_NOTHING),
    "packed_prompts": (PaddingFree(), {"written": of_the_turn}),
    "packed_gradients": (PaddingFree(), {"loss_gradients": by_turn}),
    "packing_and_frequencies": (PaddingFree(), {"_outputs": by_call}),
    "packing_is_undone": (PaddingFree(), {"apply": leaking}),
    "what_cannot_be_packed_is_refused": (PaddingFree(), APPLIES_NOTHING),
    "marks": (Swallows(), {}),
    "order_is_not_seen": (SetBased(), {"_continued": by_order}),
    "definition_of_sets": (SetBased(), APPLIES_NOTHING),
    "one_part_is_a_text": (SetBased(), {"read_sets": lambda ids, sets, cache, read: read(ids)[:, :3]}),
    "texts_without_sets": (SetBased(), {"logits": by_call}),
    "sets_are_undone": (SetBased(), {"apply": leaking}),
    "what_knows_the_order_is_refused": (SetBased(), APPLIES_NOTHING),
    "tiles": (Chunked(), {"tiled_attention": lambda q, k, v, *rest: q * k.sum() * v.sum()}),
    "chunked_models": (Chunked(), {"_outputs": by_call}),
    "chunked_gradients": (Chunked(), {"loss_gradients": by_turn}),
    "chunked_decoding": (Chunked(), {"cached_logits": lambda model, ids, sizes: ids[..., None] + float(len(list(sizes)))}),
    "memory_of_chunks": (Chunked(query_chunk=7, key_chunk=5), APPLIES_NOTHING),
    "default_chunks": (Chunked(), {"_outputs": by_call}),
    "chunks_are_undone": (Chunked(), {"apply": leaking}),
    "what_has_no_chunks_is_refused": (Chunked(), APPLIES_NOTHING),
    "neutral_memory": (WAITING, {}),
    "memory_is_read": (WAITING, APPLIES_NOTHING),
    "each_query_attends_once": (Forgetful(budget=20, delay=8, chunk=4), {}),
    "memory_and_gradients": (WAITING, APPLIES_NOTHING),
    "memory_is_undone": (WAITING, {"apply": leaking_from_an_encoder}),
    "copies_have_the_memory": (WAITING, {"copy": type("Loaded", (), {"deepcopy": staticmethod(lambda model: tiny_learned("bert"))})}),
    "causal_models_are_refused": (WAITING, {"tiny_model": lambda: tiny_learned("bert")}),
    "pieces": (Gaps(), {}),
    "texts_inside_the_window": (Unlimiformer(), {"decoded": by_call}),
    "neutral_retrieval": (Unlimiformer(window_size=16), {}),
    "retrieval": (ByLot(), {}),
    "padded_long_texts": (Unlimiformer(), {"decoded": by_padding}),
    "padding_is_not_retrieved": (Unlimiformer(), {"decoded": lambda model, ids, mask: ids[..., None].float()}),
    "order_of_states": (Unlimiformer(), {"apply": of_the_begin}),
    "retrieval_and_caches": (Unlimiformer(), {"written_from": by_cache}),
    "retrieval_gradients": (Unlimiformer(), {"gradients": by_turn}),
    "retrieval_is_undone": (Unlimiformer(), {"apply": leaking_from_an_encoder}),
    "copies_retrieve": (Unlimiformer(), {"copy": type("New", (), {"deepcopy": staticmethod(lambda model: tiny_encoder_decoder())})}),
    "models_without_an_encoder_are_refused": (Unlimiformer(), {"tiny_model": tiny_encoder_decoder}),
    "what_cannot_retrieve_is_refused": (Unlimiformer(), {"tiny_encoder_decoder": lambda window: tiny_encoder_decoder(window=2 * window)}),
    "lengths_are_kept": (Stuck(), {}),
    "positions_ascend": (Stuck(), {}),
    "text_is_read_forwards": (Stuck(), {}),
    "target_is_covered": (Stuck(), {}),
    "same_rng_same_positions": (Stuck(), {}),
    **{
        name: (Scrawl(), {})
        for name in (
            "writing_task",
            "writing_estimate",
            "writing_window",
            "writing_resume",
            "writing_concurrency",
            "writing_length",
            "nothing_is_lost",
        )
    },
    "cuts_are_told": (Scrawl(), {"ScriptedWriter": Secretive}),
    **{
        name: (NeverReads(), {})
        for name in (
            "task_in_every_prompt",
            "estimate",
            "needle",
            "inside_the_window",
            "several_documents",
            "ledger",
            "resume",
            "concurrency",
        )
    },
    **{
        name: (Careless(), {})
        for name in ("length", "seed", "right_answers", "chance", "junk", "evidence", "forgetting", "least_length", "metrics")
    },
}
# check -> what of the engine's cache layer is broken
BROKEN_LAYER = {
    "beams": ("reorder_cache", lambda layer, beams: None),
    "prompt_lookup": ("crop", lambda layer, count: setattr(layer, "tokens", layer.tokens - abs(count))),
}

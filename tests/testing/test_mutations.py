"""Small faults in the engine and in methods, each of which the shared checks have to notice."""

import dataclasses

import pytest
import torch

from longreach.attention.placement.self_extend import SelfExtend
from longreach.cache import base as cache_base
from longreach.cache.base import with_wrappers
from longreach.cache.compact._bits import Bits
from longreach.cache.compact.staircase import Staircase
from longreach.cache.compact.think import Think
from longreach.cache.eviction import snapkv
from longreach.cache.eviction.ada import Ada
from longreach.cache.eviction.h2o import H2O
from longreach.cache.eviction.lfa import LFA
from longreach.cache.eviction.lra import LRA
from longreach.cache.eviction.sirllm import SirLLM
from longreach.cache.eviction.snapkv import SnapKV
from longreach.cache.retrieval.infllm import InfLLM
from longreach.cache.retrieval.longcache import LongCache
from longreach.cache.streaming.sinks import Sinks
from longreach.core.bands import Grouped
from longreach.core.spec import parse
from longreach.engine import _accounts, _cuts, _entropy, _fused, _stream, _tree
from longreach.engine._store import BandLayer
from longreach.engine.prompt import prompt_end
from longreach.positions.scaling.dynamic_ntk import DynamicNtk
from longreach.testing import conformance
from longreach.testing.conformance.base import PROMPT

CHECKS = {check.name: check for check in conformance.checks()}


def group_off_by_one(patch):
    """Far positions begin one too far."""
    call = Grouped.__call__
    patch.setattr(Grouped, "__call__", lambda self, t: call(self, t) + (self.group > 1 and self.shift > 0))


def heavy_hitters_without_the_last(patch):
    """The last tokens are not kept for sure."""
    patch.setattr(H2O, "score", lambda self, signals, layer: signals.received)


def earlier_of_equals(patch):
    """Of equal scores the earlier token stays."""

    def highest(score, index, count):
        order = score.masked_fill(index < 0, -1e9).sort(dim=-1, descending=True, stable=True).indices
        return torch.zeros_like(index, dtype=torch.bool).scatter(-1, order[..., :count], True) & (index >= 0)

    patch.setattr(cache_base, "coarse", torch.zeros_like)
    patch.setattr(cache_base, "highest", highest)


def surroundings_on_one_side(patch):
    """What is pooled lies behind a token only."""
    pool = snapkv.avg_pool1d
    patch.setattr(snapkv, "avg_pool1d", lambda x, size, stride, padding: pool(x, size, stride, padding).roll(1, -1))


def heads_without_a_floor(patch):
    """A head has nothing for sure."""
    counts = Ada.counts
    patch.setattr(Ada, "counts", lambda self, *args: counts(Ada(floor=0), *args))


def surprise_of_the_token_before(patch):
    """A token has the entropy of the one before it."""
    entropies = _entropy.entropies
    patch.setattr(_entropy, "entropies", lambda *args: entropies(*args).roll(1))


def prompts_end_one_late(patch):
    """The first token after the prompt is taken for a part of it."""
    end = _stream.end_of_prompt
    patch.setattr(_stream, "end_of_prompt", lambda first_pass: end(first_pass) + 1)


def cut_one_short(patch):
    """A cut leaves out the token right before it."""
    cut = _cuts.CutStore.cut
    patch.setattr(_cuts.CutStore, "cut", lambda self, layer, step, slot: cut(self, layer, step, slot - 1))


def half_of_the_queries(patch):
    """Accounts forget the second half of every run of queries."""
    received = _accounts.Softmax.received

    def half(self, run, keys, first):
        return received(self, run.between(run.begin, (run.begin + run.end + 1) // 2), keys, first)

    patch.setattr(_accounts.Softmax, "received", half)


def one_key_more_of_a_query(patch):
    """A query attends to one key more than it should."""
    bar = _accounts.Softmax.bar
    patch.setattr(_accounts.Softmax, "bar", lambda self, run, parts, top: bar(self, run, parts, top + 1))


def queries_that_count_from_the_first_of_their_run(patch):
    """All queries of a run attend when its first one does."""
    attended = _accounts.Softmax.attended

    def early(self, run, keys, first):
        found = attended(self, run, keys, first)
        found[..., 0].clamp_(max=run.begin + 1)
        return found

    patch.setattr(_accounts.Softmax, "attended", early)


def spans_that_one_head_finds(patch):
    """Only the first head looks for keys."""
    select = LongCache.select
    patch.setattr(LongCache, "select", lambda self, q, keys, count: select(self, q[:, :1], keys[:, :1], count))


def nothing_is_settled_between_passes(patch):
    """What the queries of the last pass gave is lost at the next."""

    def begin_pass(self, layer, tokens):
        for row in self.rows.values():
            row.runs, row.back = [], tokens
        return min((row.state.upto for row in self.rows.values()), default=0)

    patch.setattr(_cuts.CutStore, "begin_pass", begin_pass)


def one_exempt_token_less(patch):
    """The first of the tokens whose keys stay whole has a thin one."""
    patch.setattr(Think, "kept", lambda self, inner: dataclasses.replace(inner, thinner=dataclasses.replace(self, exempt=self.exempt - 1)))


def channels_by_all_but_the_last_query(patch):
    """The last query of the prompt has no say in which channels stay."""
    channels = Think.channels
    patch.setattr(Think, "channels", lambda self, keys, queries: channels(self, keys, queries[:, :, :-1]))


def blocks_one_nearer(patch):
    """A block leaves the local window one block early."""
    stores = InfLLM.stores

    def nearer(self, layer):
        blocks, band = stores(self, layer)
        return dataclasses.replace(blocks, near=blocks.near - 1), band

    patch.setattr(InfLLM, "stores", nearer)


def one_bit_less(patch):
    """Codes are coarser than they say."""
    encode = Bits.encode
    patch.setattr(Bits, "encode", lambda self, x, side: encode(self, (x * 8).round() / 8, side))


def window_one_short(patch):
    """The window forgets a token too much."""
    forget = BandLayer.forget

    def shorter(self):
        forget(self)
        if self.plan.window:
            self.recent.keep_last(max(0, self.plan.window - 2))

    patch.setattr(BandLayer, "forget", shorter)


def weights_do_not_add_up(patch):
    """Pieces are merged without their log-sum-exp."""
    patch.setattr(_fused, "_merged", lambda out, lse, other, other_lse: ((out + other) / 2, torch.logaddexp(lse, other_lse)))


def frequencies_are_not_restored(patch):
    """A snapshot does not say which frequencies its keys are turned by."""
    hold = BandLayer.hold
    patch.setattr(BandLayer, "hold", lambda self, held: hold(self, dataclasses.replace(held, epoch=None)))


def states_are_not_one(patch):
    """Queries that saw the present state of a store see another one after a restore."""
    read = _tree.Reader._dataclass

    def anew(self, kind, node):
        self._made.clear()
        return read(self, kind, node)

    patch.setattr(_tree.Reader, "_dataclass", anew)


MUTATIONS = [
    (group_off_by_one, SelfExtend(neighbours=16, group=4), "reference"),
    (heavy_hitters_without_the_last, H2O(budget=8, recent=6, slack=1), "reference"),
    (earlier_of_equals, H2O(budget=16, slack=4), "reference"),
    (surroundings_on_one_side, SnapKV(budget=8, window_size=3, kernel_size=3), "reference"),
    (heads_without_a_floor, *with_wrappers(parse("h2o:budget=12,recent=4,slack=3+ada:floor=0.5")), "reference"),
    (surprise_of_the_token_before, SirLLM(budget=14, num_sinks=2, recent=5, slack=12), "decoding"),
    (prompts_end_one_late, SnapKV(budget=8, window_size=3, kernel_size=3), "reference"),
    (cut_one_short, H2O(budget=16, slack=4), "reference"),
    (half_of_the_queries, H2O(budget=16, slack=4), "reference"),
    (nothing_is_settled_between_passes, H2O(budget=16, slack=4), "decoding"),
    (one_key_more_of_a_query, LFA(budget=12, slack=4), "reference"),
    (queries_that_count_from_the_first_of_their_run, LRA(budget=12, slack=4), "reference"),
    (spans_that_one_head_finds, LongCache(span_size=4, num_spans=2, local_window=8, top_k=2), "reference"),
    (one_exempt_token_less, Think(keep=0.5, observe=6, exempt=5), "reference"),
    (channels_by_all_but_the_last_query, Think(keep=0.5, observe=6, exempt=5), "reference"),
    (blocks_one_nearer, InfLLM(block_size=4, num_blocks=2, local_window=8, num_representatives=2), "reference"),
    (one_bit_less, Staircase(exact=8, eight=8, four=8, chunk_size=4), "lengths"),
    (window_one_short, Sinks(num_sinks=4, window_size=16), "chunks"),
    (frequencies_are_not_restored, DynamicNtk(factor=2, step=16), "snapshots"),
    (states_are_not_one, H2O(budget=16, slack=4), "snapshots"),
    (weights_do_not_add_up, SelfExtend(neighbours=16, group=4), "lengths"),
]


@pytest.mark.parametrize(("fault", "example", "name"), MUTATIONS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_fault_is_noticed(fault, example, name, monkeypatch):
    fault(monkeypatch)
    with prompt_end(PROMPT), pytest.raises(AssertionError):
        CHECKS[name].run(example)

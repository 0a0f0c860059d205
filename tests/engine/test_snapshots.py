"""Snapshots of caches, taken and put back whatever happens in between."""

import copy
import random
from dataclasses import dataclass, replace
from functools import cache as memoized

import pytest
import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache

from longreach.core.errors import LongreachError
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.prompt import prompt_end
from longreach.engine.snapshot_files import load, save
from longreach.engine.snapshots import restore, settle, snapshot
from longreach.testing.conformance.base import close, left_padding, logits, same, shared_model
from longreach.testing.models import random_ids, tiny_biased, tiny_learned, tiny_model
from tests.engine.caches import filled, read

SURPRISED = "sirllm:budget=10,num_sinks=2,slack=4"
SINKS, H2O, PLACED, SCALED = "sinks:window_size=16", "h2o:budget=16,slack=4", "self_extend:neighbours=8,group=4", "linear:factor=4"
QUEST = "quest:budget=8,page_size=2,dense_layers=0"
BLOCKS = "infllm:block_size=4,num_blocks=2,local_window=8,num_representatives=2"
CHOSEN = "longheads:chunk_size=5,num_chunks=5"
ROUNDS = "staircase:exact=8,eight=8,four=8,chunk_size=4"


@memoized
def double_model():
    """For methods that round."""
    return tiny_model(max_position_embeddings=32).double()


# --- whatever happens in between


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A cache, what its rows have read [B, T], and how many of the last tokens can be taken back."""

    cache: Cache
    ids: torch.Tensor
    mask: torch.Tensor
    back: int

    def read(self, model, new):
        """The logits of more tokens are those of reading all of them at once."""
        count = new.shape[1]
        after = replace(self, ids=torch.cat([self.ids, new], 1), mask=torch.cat([self.mask, torch.ones_like(new)], 1), back=count)
        wanted = logits(model, after.ids, after.mask)[:, -count:]
        close(read(model, self.cache, new, attention_mask=after.mask), wanted, f"after {self.ids.shape[1]} tokens")
        return after

    def crop(self, count):
        self.cache.crop(-count)
        return replace(self, ids=self.ids[:, :-count], mask=self.mask[:, :-count], back=self.back - count)

    def pick(self, rows):
        self.cache.batch_select_indices(torch.tensor(rows))
        return replace(self, ids=self.ids[rows], mask=self.mask[rows], back=0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "spec", ["full", SINKS, H2O, "tova:budget=12,slack=1", "snapkv:budget=8,window_size=3", SURPRISED, BLOCKS, ROUNDS, CHOSEN]
)
def test_any_order_of_reading_and_restoring(spec, seed, tmp_path):
    choose, file = random.Random(seed), tmp_path / "taken.safetensors"
    model = double_model() if spec == ROUNDS else shared_model()
    with apply(model, spec, warn=False), prompt_end(23):
        ids, mask = random_ids(2, 23, seed=seed), left_padding((23, choose.choice([3, 14, 22])), 23)
        replay = Replay(cache=DynamicCache(config=model.config), ids=ids, mask=mask, back=3)
        read(model, replay.cache, ids, attention_mask=mask)
        kept = [(snapshot(replay.cache), replay)]
        for _ in range(16):
            action = choose.choice(["read", "read", "read", "crop", "rows", "rows", "snapshot", "restore", "restore", "load"])
            taken, then = choose.choice(kept)
            if action == "read":
                replay = replay.read(model, random_ids(len(replay.ids), choose.choice([1, 2, 5, 9]), seed=choose.randrange(1000)))
            elif action == "crop" and replay.back:
                replay = replay.crop(choose.randint(1, replay.back))
            elif action == "rows":
                replay = replay.pick(choose.choices(range(len(replay.ids)), k=choose.randint(1, 3)))
            elif action == "snapshot":
                kept.append((snapshot(replay.cache), replay))
            elif action == "restore":
                restore(replay.cache, taken)
                replay = replace(then, cache=replay.cache)
            elif action == "load":
                save(taken, file, model)
                replay = replace(then, cache=DynamicCache(config=model.config))
                restore(replay.cache, load(file, model))
            assert replay.cache.get_seq_length() == replay.ids.shape[1]
        replay.read(model, random_ids(len(replay.ids), 5))


@pytest.mark.parametrize("spec", ["full", "h2o:budget=64,slack=32", "longheads:chunk_size=4,num_chunks=5"])
def test_what_is_written_in_place_leaves_snapshots_alone(spec):
    model, one, other, more = shared_model(), *(random_ids(1, count, seed=count) for count in (8, 9, 20))
    with apply(model, spec, warn=False):
        cache, fresh = filled(model), filled(model)
        for part in (random_ids(1, 36), one):
            read(model, cache, part)
            read(model, fresh, part)
        wanted = read(model, fresh, more)
        assert cache.layers[0].recent.data["v"].shape[2] == len(cache.layers[0].recent) == 64  # full to the last token
        taken = [snapshot(cache)]
        for _ in range(2):
            cache.crop(-8)
            read(model, cache, other[:, :8])  # into the room of the tokens that were taken back
            restore(cache, taken[-1])
            taken.append(snapshot(cache))
        for each in taken:
            restore(cache, each)
            same(read(model, cache, more), wanted, "after a restore")


@pytest.mark.parametrize("family", ["qwen2_mixed", "gemma3", "gpt_oss", "falcon"])
@pytest.mark.parametrize("spec", [None, PLACED, H2O])
def test_layers_of_every_kind(spec, family, tmp_path):
    model, more = tiny_model(family), random_ids(2, 6, seed=1)
    with apply(model, spec):
        cache = filled(model, 30, rows=2)
        save(taken := snapshot(cache), tmp_path / "taken.safetensors", model)
        wanted = read(model, cache, more)
        for source in (taken, load(tmp_path / "taken.safetensors", model)):
            for target in (cache, DynamicCache(config=model.config)):
                restore(target, source)
                same(read(model, target, more), wanted, family)


def test_a_sliding_window_that_records_its_past():
    model, more = tiny_model("mistral"), random_ids(1, 6, seed=1)
    cache, again = DynamicCache(config=model.config), DynamicCache(config=model.config)
    cache.activate_past_recording()
    restore(again, snapshot(filled(model, cache=cache)))
    for each in (cache, again):
        each.crop(-2)
    same(read(model, again, more), read(model, cache, more), "after tokens were taken back")


def test_learned_positions_and_a_cache_that_does_not_know_its_layers():
    model, more = tiny_learned("gpt2"), random_ids(1, 6, seed=1)
    cache = filled(model, cache=DynamicCache())
    taken = snapshot(cache)
    wanted = read(model, cache, more)
    again = DynamicCache()
    restore(again, taken)
    same(read(model, again, more), wanted, "an empty cache without layers")


def test_encoder_decoders(tmp_path):
    model, ids, mask = tiny_biased(), random_ids(2, 20), left_padding((20, 13), 20).flip(1)
    written, more = random_ids(2, 5, seed=1), random_ids(2, 4, seed=2)

    def go_on(cache, tokens):
        encoded = model.get_encoder()(ids, attention_mask=mask)
        given = {"encoder_outputs": encoded, "attention_mask": mask, "decoder_input_ids": tokens}
        return model(**given, **cache_argument(model, cache), use_cache=True).logits

    def empty():
        return EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config))

    with torch.no_grad():
        cache = empty()
        go_on(cache, written)
        save(taken := snapshot(cache), tmp_path / "taken.safetensors", model)
        wanted = go_on(cache, more)
        for source in (taken, load(tmp_path / "taken.safetensors", model)):
            for target in (cache, empty()):
                restore(target, source)
                assert target.get_seq_length() == 5
                assert set(target.is_updated.values()) == {True}  # else the text would be read again
                same(go_on(target, more), wanted, "after what was written")
        with pytest.raises(LongreachError, match="of another kind of cache than a DynamicCache"):
            restore(DynamicCache(config=model.config), taken)


def test_generate_goes_on_from_a_restored_cache():
    model, ids = tiny_model(), random_ids(1, 40)
    options = {"do_sample": False, "min_new_tokens": 8, "max_new_tokens": 8, "pad_token_id": 0}
    with apply(model, H2O):
        cache = DynamicCache(config=model.config)
        read(model, cache, ids[:, :-5])
        taken = snapshot(cache)
        wanted = model.generate(ids, **cache_argument(model, cache), **options)
        restore(cache, taken)
        same(model.generate(ids, **cache_argument(model, cache), **options), wanted, "written again")


def test_copies_of_a_model_have_caches_of_their_own():
    model, more = tiny_model(), random_ids(1, 6, seed=1)
    with apply(model, PLACED):
        twin = copy.deepcopy(model)
    cache = filled(twin)
    taken = snapshot(cache)
    wanted = read(twin, cache, more)
    again = DynamicCache(config=twin.config)
    restore(again, taken)
    same(read(twin, again, more), wanted, "the copy")
    with apply(model, PLACED), pytest.raises(LongreachError, match="filled outside the applied longreach method"):
        read(model, again, more)


# --- what it costs


def storages(taken):
    return {tensor.untyped_storage().data_ptr() for parts in taken.caches for part in parts for tensor in part.tensors}


def test_a_snapshot_keeps_live_bytes():
    model = shared_model()
    config = model.config
    a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.hidden_size // config.num_attention_heads * 4
    for spec, kept in (("full", 500), (SINKS, 4 + 15 + 20)):  # what the window holds, and the last forward pass
        with apply(model, spec, warn=False):
            cache = DynamicCache(config=config)
            for part in random_ids(1, 500).split(20, 1):
                read(model, cache, part)
            assert kept * a_token <= snapshot(cache).nbytes <= kept * a_token + 100


@pytest.mark.parametrize(("spec", "shared"), [(None, 2 * 2), (H2O, 2 * 3), (BLOCKS, 2 * 2)])
def test_what_is_never_changed_in_place_is_shared(spec, shared):
    model = shared_model()
    with apply(model, spec, warn=False):
        cache = filled(model, 40)
        one, two = snapshot(cache), snapshot(cache)
        assert len(storages(one) & storages(two)) >= shared
        if spec is not None:
            windows = [layer.recent.view("v").untyped_storage().data_ptr() for layer in cache.layers]
            assert storages(one).isdisjoint(windows)


@torch.no_grad()
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    "spec", ["snapkv:budget=8,window_size=4", "h2o:budget=16,slack=4", "sinks:num_sinks=2,window_size=8", BLOCKS, QUEST]
)
def test_a_settled_cache_goes_on_as_if_nothing_had_been_done(spec, padding):
    model, ids = tiny_model(), torch.randint(3, 90, (2, 40), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    found, sizes = [], []
    with apply(model, spec, warn=False):
        for settles in (False, True):
            cache = DynamicCache(config=model.config)
            for begin, end in ((0, 30), (30, 40)):
                given = {"attention_mask": mask[:, :end], "use_cache": True}
                logits = model(ids[:, begin:end], **given, **cache_argument(model, cache)).logits
                if settles and end == 30:
                    settle(cache)
                sizes += [snapshot(cache).nbytes] if end == 30 else []
            found.append(logits)
    assert torch.equal(*found)
    assert spec == QUEST or sizes[1] < sizes[0]  # bounds of pages come on top

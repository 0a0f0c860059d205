import pytest
import torch

from longreach.decoding.reading import prefill
from longreach.engine.snapshots import snapshot
from longreach.serving.prefixes import PrefixStore
from longreach.serving.profiles import Profiles
from longreach.testing.models import random_ids
from tests.conversation.talks import talker

IDS = random_ids(1, 60)[0].tolist()


@pytest.fixture(scope="module")
def profiles():
    found = Profiles(*talker(), ["sinks:window_size=24"])
    yield found
    found.close()


def read(profile, ids):
    cache = profile.empty()
    prefill(profile.model, torch.tensor([ids]), cache=cache)
    return snapshot(cache)


def next_logits(profile, cache, ids):
    return prefill(profile.model, torch.tensor([ids]), cache=cache)


def test_a_plain_cache_is_cut_back_to_where_texts_part(profiles):
    profile, store = profiles.all[0], PrefixStore(1 << 24)
    store.keep(profile, (), IDS[:50], read(profile, IDS[:50]))
    other = [*IDS[:30], 5, 6, 7]
    count, cache = store.find(profile, (), other)
    assert count == 30
    torch.testing.assert_close(next_logits(profile, cache, other[30:]), next_logits(profile, profile.empty(), other))
    assert store.find(profile, (), IDS[:50])[0] == 49  # the last is read, for its logits
    assert store.find(profile, (), IDS)[0] == 50


def test_a_cache_that_forgets_serves_where_all_of_it_is_the_beginning(profiles):
    profile, store = profiles.widest, PrefixStore(1 << 24)
    store.keep(profile, (), IDS[:50], read(profile, IDS[:50]))
    assert store.find(profile, (), [*IDS[:30], 5, 6, 7])[0] == 0
    count, cache = store.find(profile, (), IDS)
    assert count == 50
    torch.testing.assert_close(next_logits(profile, cache, IDS[50:]), next_logits(profile, profile.empty(), IDS))


def test_nothing_is_taken_from_another_profile_or_other_frequencies(profiles):
    profile, store = profiles.all[0], PrefixStore(1 << 24)
    store.keep(profile, (True,), IDS, read(profile, IDS))
    assert store.find(profile, (False,), IDS)[0] == 0
    assert store.find(profiles.widest, (True,), IDS)[0] == 0
    assert store.find(profile, (True,), IDS)[0] == len(IDS) - 1


def test_short_beginnings_are_not_worth_it(profiles):
    profile, store = profiles.all[0], PrefixStore(1 << 24)
    store.keep(profile, (), IDS, read(profile, IDS))
    assert store.find(profile, (), [*IDS[:15], 3, 4])[0] == 0
    assert store.find(profile, (), [*IDS[:16], 3, 4])[0] == 16


def test_what_was_not_used_for_longest_goes_first(profiles):
    profile = profiles.all[0]
    texts = [random_ids(1, 40, seed=seed)[0].tolist() for seed in range(3)]
    taken = [read(profile, text) for text in texts]
    store = PrefixStore(2 * taken[0].nbytes)
    store.keep(profile, (), texts[0], taken[0])
    store.keep(profile, (), texts[1], taken[1])
    assert store.find(profile, (), texts[0])[0] == 39
    store.keep(profile, (), texts[2], taken[2])
    assert [store.find(profile, (), text)[0] > 0 for text in texts] == [True, False, True]
    assert store.bytes == sum(each.nbytes for each in taken[:2])
    small = PrefixStore(8)
    small.keep(profile, (), texts[0], taken[0])
    assert len(small) == small.bytes == 0
    store.clear()
    assert len(store) == store.bytes == 0


def test_a_longer_text_takes_the_place_of_its_beginning(profiles):
    profile, store = profiles.all[0], PrefixStore(1 << 24)
    store.keep(profile, (), IDS[:30], read(profile, IDS[:30]))
    longer = read(profile, IDS)
    store.keep(profile, (), IDS, longer)
    store.keep(profile, (), IDS[:40], read(profile, IDS[:40]))  # held already
    assert len(store) == 1
    assert store.bytes == longer.nbytes

"""What texts begin with in common is read once, and each is read as by itself."""

import weakref

import pytest
import torch

from longreach.core.errors import InputError, LongreachError
from longreach.core.progress import Progress
from longreach.decoding.reading import new_cache, read
from longreach.decoding.shared import Beginning, SharedReading, _stops
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.testing.models import random_ids, tiny_model

METHODS = ("", "yarn:factor=4", "self_extend:neighbours=16,group=8", "sinks:window_size=64", "dynamic_ntk:step=8", "snapkv:budget=40")
TEXT = random_ids(1, 400)[0].tolist()
OTHER = random_ids(1, 400, seed=1)[0].tolist()
# Three share 150 tokens, two of them 250, and one of those begins another; one shares too little, and one nothing.
TEXTS = [
    TEXT[:250],
    [*TEXT[:250], *OTHER[:50]],
    [*TEXT[:150], *OTHER[:80]],
    [*TEXT[:5], *OTHER[:40]],
    OTHER[:3],
]


class Count(Progress):
    def __init__(self):
        self.told = 0

    def advance(self, tokens):
        self.told += tokens


@pytest.fixture
def model():
    return tiny_model()


def beginnings(texts=TEXTS, times=1, more=0):
    return [Beginning(ids=tuple(text), times=times, longest=len(text) + more) for text in texts]


def counted(model):
    """The tokens of every forward pass that is made from now on."""
    passes = []
    model.register_forward_pre_hook(lambda module, args: passes.append(args[0].shape[1]))
    return passes


@torch.no_grad()
@pytest.mark.parametrize("spec", METHODS)
def test_each_text_is_read_as_by_itself(model, spec):
    more = torch.tensor([OTHER[100:120]])
    with apply(model, spec, warn=False):
        wanted = {}
        for text in TEXTS:
            cache = new_cache(model)
            last = model(torch.tensor([text]), **cache_argument(model, cache)).logits[0, -1]  # the prompt, in one piece
            wanted[tuple(text)] = last, model(more, **cache_argument(model, cache)).logits[0]
        seen = 0
        for begun in SharedReading(model, chunk_size=60).each(beginnings(times=2, more=20)):
            last, after = wanted[begun.beginning.ids]
            torch.testing.assert_close(begun.logits, last, atol=1e-4, rtol=1e-4)
            for _ in range(2):
                logits = torch.cat([part[0] for _, part in read(model, more, cache=begun.cache(), chunk_size=7, logits="all")])
                torch.testing.assert_close(logits, after, atol=1e-4, rtol=1e-4)
            seen += 1
    assert seen == len(TEXTS)


def test_common_beginnings_are_read_once(model):
    reading, passes, count = SharedReading(model), counted(model), Count()
    reading.progress = count
    list(reading.each(beginnings()))
    assert sum(passes) == 150 + 100 + 50 + 80 + 45 + 3
    assert count.told == sum(map(len, TEXTS))


def test_a_prompt_that_is_cut_at_its_end_shares_nothing(model):
    with apply(model, "snapkv:budget=40", warn=False):
        reading, passes = SharedReading(model), counted(model)
        list(reading.each(beginnings()))
    assert sum(passes) == sum(map(len, TEXTS))


def test_texts_that_are_gone_on_from_twice_are_not_read_again(model):
    reading, passes = SharedReading(model), counted(model)
    for begun in reading.each(beginnings([TEXT], times=3)):
        assert [int(begun.cache().get_seq_length()) for _ in range(3)] == [400] * 3
    assert sum(passes) == 400


@pytest.mark.parametrize("times", [1, 2])
def test_a_cache_is_let_go_when_the_next_text_is_read(model, times):
    reading = SharedReading(model)
    texts = reading.each(beginnings([OTHER[:50], TEXT[:50]], times=times))
    first = next(texts)
    cache = weakref.ref(first.cache())
    begun = next(texts)
    assert begun is not first
    assert cache() is None


def test_what_cannot_be_put_back_is_read_again(model, monkeypatch):
    def refuse(cache):
        raise LongreachError("no snapshots")

    monkeypatch.setattr("longreach.decoding.shared.snapshot", refuse)
    reading, passes = SharedReading(model), counted(model)
    for begun in reading.each(beginnings([TEXT[:200], TEXT], times=2)):
        first, second = begun.cache(), begun.cache()
        assert first is not second
        assert int(second.get_seq_length()) == len(begun.beginning.ids)
    assert sum(passes) == 2 * 200 + 2 * 400


def test_lengths_with_other_frequencies_are_not_mixed():
    model = tiny_model("llama_longrope")  # of 32 tokens, beyond which it reads by others
    short, long = TEXT[:28], TEXT[:90]
    found = {}
    for begun in SharedReading(model, chunk_size=20).each(beginnings([short, long])):
        found[begun.beginning.ids] = begun.logits
    for text in (short, long):
        with torch.no_grad():
            torch.testing.assert_close(found[tuple(text)], model(torch.tensor([text])).logits[0, -1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("start", "shared", "length", "stops"),
    [
        (0, [100, 60, 0], 200, [60, 100]),
        (0, [100, 90, 0], 200, [90]),  # 100 tokens save too little more
        (0, [15], 200, []),
        (60, [100, 60, 0], 200, [100]),
        (0, [60, 100], 200, [60]),  # the longer one is the next text's
        (0, [], 200, []),
        (0, [80], 80, [80]),
    ],
)
def test_where_snapshots_are_taken(start, shared, length, stops):
    assert _stops(start, iter(shared), length) == stops


def test_a_model_in_training_is_refused(model):
    with pytest.raises(InputError, match="training mode"):
        SharedReading(model.train())


def test_logits_that_are_not_finite_are_told_of(model):
    reading = SharedReading(model)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(LongreachError, match="layer 2 of 3"):
        list(reading.each(beginnings([TEXT[:10]])))

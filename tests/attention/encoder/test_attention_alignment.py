import json
import math

import pytest
import torch

from longreach.attention.encoder.attention_alignment import AttentionAlignment, AttentionAlignmentFit, aligned, solve
from longreach.core.errors import InputError, SpecError, UnsupportedError
from longreach.core.fitting import Bench, BudgetSpent
from longreach.core.progress import Progress
from longreach.evaluation.rows import Rows
from longreach.stretching.fit import fit
from longreach.testing.models import tiny_biased, tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer


class MadeUp(Bench):
    """A model whose logits are drawn from a normal distribution, whatever the length."""

    def __init__(self, deviation, window=256, target=2048, most=10**6):
        self.trained_window, self.target, self.left, self.least = window, target, most, 0
        self.logits = deviation * torch.randn(64, target, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def rope(self):
        raise NotImplementedError

    def loss(self, method, length):
        raise NotImplementedError

    def begin(self, label, evaluations, *, least=1, share=1.0):
        self.least = least

    def sharpness(self, method, length, metric):
        if self.left < 1 > self.least:
            raise BudgetSpent
        self.left, self.least = self.left - 1, self.least - 1
        temperature = 1.0 if method is None else method.temperature_at(length, self.trained_window)
        weights = (self.logits[:, :length] / temperature).softmax(-1)
        return sharpness_of(weights, metric)


def sharpness_of(weights, metric):
    found = -(weights * weights.clamp(min=1e-300).log()).sum(-1) if metric == "entropy" else weights.max(-1).values
    return found.mean().item()


# what is found


@pytest.mark.parametrize("strategy", ["max_probability", "entropy"])
@pytest.mark.parametrize("deviation", [0.7, 1.0, 2.0])
def test_it_aligns_made_up_logits_at_every_length(strategy, deviation):
    bench = MadeUp(deviation)
    found = AttentionAlignmentFit(strategy=strategy).run(bench)
    assert [length for length, _ in found["temperatures"]] == [512, 1024, 2048]
    wanted = bench.sharpness(None, 256, strategy)
    method = aligned(found["temperatures"], 256)
    for length, temperature in found["temperatures"]:
        assert bench.sharpness(method, length, strategy) == pytest.approx(wanted, rel=2e-3)
        assert abs(bench.sharpness(None, length, strategy) / wanted - 1) > 0.05
        assert 0 < temperature < 1


@pytest.mark.parametrize("deviation", [0.7, 1.0])
def test_the_temperature_of_normal_logits_is_the_one_that_theory_gives(deviation):
    # Of n normal logits of deviation s, the entropy is log n - s^2 / 2, as long as s is well below sqrt(2 log n).
    found = AttentionAlignmentFit(strategy="entropy").run(MadeUp(deviation))
    for length, temperature in found["temperatures"][:2]:
        assert temperature == pytest.approx(deviation / math.sqrt(deviation**2 + 2 * math.log(length / 256)), rel=0.04)


def test_a_spent_budget_leaves_the_target_fitted():
    found = AttentionAlignmentFit().run(MadeUp(1.0, most=3))
    assert [length for length, _ in found["temperatures"]] == [2048]


def test_what_cannot_be_aligned_is_said():
    with pytest.raises(InputError, match=r"no temperature from 1 to 0\.015625 brings max_probability at 2048 tokens to what it is at 256"):
        AttentionAlignmentFit().run(MadeUp(1e-6))


def test_roots_are_found_and_their_absence_is_seen():
    calls = []

    def off(x):
        calls.append(x)
        return x**3 - 0.3**3

    root = solve(off, (1.0, off(1.0)), 1 / 64)
    assert abs(root**3 - 0.3**3) <= 1e-3
    assert len(calls) <= 12
    assert solve(lambda x: x + 1, (1.0, 2.0), 0.1) is None
    assert solve(lambda x: pytest.fail("not needed"), (1.0, 1e-4), 0.1) == 1.0


# which temperature a text has


def test_between_fitted_lengths_it_is_interpolated_over_the_logarithm():
    method = aligned([[100, 0.8], [400, 0.5]], window=25)
    at = [method.temperature_at(length, 25) for length in (1, 25, 50, 100, 200, 400, 9000)]
    assert at == pytest.approx([1, 1, 0.9, 0.8, 0.65, 0.5, 0.5])
    assert method.stated_window() == 25


def test_by_hand_it_is_for_all_texts_beyond_the_window():
    method = AttentionAlignment(temperature=0.7)
    assert [method.temperature_at(length, 32) for length in (32, 33, 9000)] == [1, 0.7, 0.7]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "give file=FITTED.json, which `longreach fit MODEL attention_alignment` makes, or temperature"),
        ({"temperature": math.nan}, "temperature=nan must be above 0 and finite"),
        ({"temperature": math.inf}, "temperature=inf must be above 0 and finite"),
        ({"file": aligned([[64, 0.8]], 32).file, "window_size": 8}, "window_size=8 has no effect beside a file"),
        ({"file": aligned([[64, 0.8]], 32).file, "temperature": 0.5}, "and not both"),
    ],
)
def test_bad_settings(settings, says):
    with pytest.raises(SpecError, match=says):
        AttentionAlignment(**settings)


@pytest.mark.parametrize(
    "points", [[], [[64]], [[32, 0.8]], [[64, 0.8], [64, 0.7]], [[64, 0.0]], [[64, "hot"]], [64, 0.8], "none"], ids=str
)
def test_damaged_files(points):
    with pytest.raises(SpecError, match="is damaged"):
        aligned(points, 32)


def test_an_unknown_strategy():
    with pytest.raises(SpecError, match="strategy=sharpest is not known; choose max_probability or entropy"):
        AttentionAlignmentFit(strategy="sharpest")


# on a model


@pytest.fixture(scope="module")
def model():
    return tiny_biased(vocab_size=VOCABULARY, window=64)


def fitted(model, strategy="entropy", **changes):
    settings = {"name": "tiny", "method": f"attention_alignment:strategy={strategy}", "to": 300, "text": real_text()[:60_000], "windows": 4}
    return fit(model, tokenizer(), **settings | changes)


@pytest.mark.parametrize("strategy", ["max_probability", "entropy"])
def test_fitted_on_text_it_holds_on_other_text(model, strategy):
    rows = Rows()
    found = fitted(model, strategy, rows=rows)
    assert [length for length, _ in found["fitted"]["temperatures"]] == [128, 256, 300]
    searched = {(row.method, row.length): row.score for row in reversed(list(rows))}  # the first of each: other text comes last
    wanted = searched["", 64]
    for length, temperature in found["fitted"]["temperatures"]:
        spec = AttentionAlignment(temperature=temperature, window_size=64).spec
        assert searched[spec, length] == pytest.approx(wanted, rel=1.1e-3)
    stock, ours = found["results"]
    assert (stock["method"], ours["method"], found["metric"]) == ("", "attention_alignment", strategy)
    assert ours["inside"] == stock["inside"]
    assert abs(stock["beyond"] / stock["inside"] - 1) > 0.5
    assert abs(ours["beyond"] / stock["inside"] - 1) < 0.1
    assert json.loads(json.dumps(found)) == found


def test_a_fit_run_again_reads_nothing(model):
    class Counting(Progress):
        tokens = 0

        def advance(self, tokens):
            self.tokens += tokens

    rows, progress = Rows(), Counting()
    first = fitted(model, rows=rows, windows=1)
    assert fitted(model, rows=rows, windows=1, progress=progress) == first
    assert progress.tokens == 0


def test_the_window_can_be_stated():
    silent = tiny_biased(vocab_size=VOCABULARY, window=None)
    with pytest.raises(InputError, match=r"states no trained window; give it in tokens, as attention_alignment:window_size=512"):
        fitted(silent)
    found = fitted(silent, method="attention_alignment:window_size=100", to=150, windows=1)
    assert (found["trained_window"], found["fitted"]["window"]) == (100, 100)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"to": 64}, "nothing to fit: 64 tokens are within the trained window of 64"),
        ({"chunk_size": 64}, "chunk_size and batch_size have no effect on attention_alignment: an encoder reads windows whole"),
        ({"batch_size": 2}, "chunk_size and batch_size have no effect"),
    ],
)
def test_what_cannot_be_fitted(model, changes, says):
    with pytest.raises(InputError, match=says):
        fitted(model, **changes)


def test_decoders_are_refused():
    with pytest.raises(UnsupportedError, match="attention_alignment cannot be used with LlamaForCausalLM: it has no encoder"):
        fitted(tiny_model(vocab_size=VOCABULARY, max_position_embeddings=64))

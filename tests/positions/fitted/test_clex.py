"""CLEX's equation against closed forms and against a slow integration of the whole of it; its fit on made-up losses and on a tiny model."""

import json
import math
from functools import cache

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from longreach.checkpoints.checkpoint import save
from longreach.checkpoints.export import verify_export
from longreach.core.errors import SpecError, UnsupportedError
from longreach.core.fitting import Bench, BudgetSpent
from longreach.core.progress import Progress
from longreach.core.spec import parse
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.rotation import differentiable, rotary_modules
from longreach.evaluation.rows import Rows
from longreach.positions.fitted._ode import Network, frequencies, runge_kutta
from longreach.positions.fitted.clex import Clex, ClexFit, _values, with_weights
from longreach.positions.scaling.ntk import Ntk
from longreach.stretching.fit import fit
from longreach.testing.models import random_ids, tiny_model
from tests.checkpoints.folders import byte_tokenizer, tiny
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer
from tests.positions.ropes import ROPES, assert_close, in_transformers

TINY = ROPES[3]

pytestmark = pytest.mark.usefixtures("warm_reader")


def network(rope, scale=0.05, seed=0):
    draw, inner = torch.Generator().manual_seed(seed), rope.dim
    up, down = torch.randn(2, rope.dim // 2, inner, generator=draw, dtype=torch.float64) * scale
    return Network(up, down.T.contiguous() * scale)


def fitted(rope, factor=8.0, **changes):
    return with_weights({**_values(rope, factor, network(rope)), **changes})


# the equation


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("factor", [1.5, 2.0, 8.0, 32.0])
def test_a_network_of_zeros_is_ntk_aware_scaling(rope, factor):
    wanted, _ = Ntk(factor=2 * factor - 1).inv_freq(rope, 1)
    assert_close(frequencies(rope, Network.new(rope.dim, 1, 0), factor), wanted.double())
    assert_close(Clex(factor=factor).inv_freq(rope, 1)[0], wanted.double())


@pytest.mark.parametrize("method", [Clex(), Clex(factor=1), fitted(TINY), fitted(TINY).__class__(file=fitted(TINY).file, factor=1.0)])
def test_inside_the_window_frequencies_are_the_models_own(method):
    for length in (1, TINY.trained_window):
        found, factor = method.inv_freq(TINY, length)
        assert torch.equal(found, TINY.inv_freq())
        assert factor == 1.0


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("factor", [1.3, 4.0])
def test_it_is_the_whole_equation_integrated_slowly(rope, factor):
    # dx/dt = SiLU((x + log theta_ntk(t)) up) down + d theta_ntk/dt / theta_ntk, by the midpoint rule in 1500 steps.
    maps, d, base = network(rope, scale=0.1), rope.dim, rope.theta
    index = torch.arange(0, d, 2, dtype=torch.float64)

    def slope(t, x):
        alpha = 2 * t - 1
        theta = (base * alpha ** (d / (d - 2))) ** (-index / d)
        change = -2 * index / (d - 2) / (base ** (index / d) * alpha ** (index / (d - 2) + 1))
        h = (x + theta.log()) @ maps.up
        return (h / (1 + (-h).exp())) @ maps.down + change / theta

    x, t, h = (base ** (-index / d)).log(), 1.0, (factor - 1) / 1500
    for _ in range(1500):
        x, t = x + h * slope(t + h / 2, x + h / 2 * slope(t, x)), t + h
    found = frequencies(rope, maps, factor)
    torch.testing.assert_close(found, x.exp(), rtol=1e-6, atol=0)
    assert (found / frequencies(rope, None, factor)).log().abs().max() > 0.01, "the network does nothing"


def test_runge_kutta_is_exact_where_it_has_to_be_and_of_fourth_order():
    zero = torch.zeros(2, dtype=torch.float64)
    cubic = runge_kutta(lambda t, y: torch.full_like(y, 4 * t**3), zero, 1.0, 3.0, 1)
    torch.testing.assert_close(cubic, zero + 80)
    errors = [abs(float(runge_kutta(lambda t, y: y * math.cos(t), zero + 1, 0.0, 2.0, n)[0]) - math.exp(math.sin(2))) for n in (10, 20, 40)]
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.3)
    assert errors[1] / errors[2] == pytest.approx(16, rel=0.3)


def test_frequencies_can_be_differentiated_by_both_maps():
    maps = network(TINY, scale=0.2)
    for map_ in (maps.up, maps.down):
        map_.requires_grad_()
    weights = torch.linspace(-1, 1, TINY.dim // 2, dtype=torch.float64)
    found = torch.autograd.grad((frequencies(TINY, maps, 3.0).log() * weights).sum(), (maps.up, maps.down))
    with torch.no_grad():
        for map_, gradient in zip((maps.up, maps.down), found, strict=True):
            for at in ((0, 0), (2, 5), (-1, -1)):
                sides = []
                for step in (1e-5, -1e-5):
                    map_[at] += step
                    sides.append(float((frequencies(TINY, maps, 3.0).log() * weights).sum()))
                    map_[at] -= step
                assert float(gradient[at]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5, abs=1e-8)


# the method


def test_the_factor_follows_the_text_up_to_what_was_fitted():
    method, window = fitted(TINY, factor=3.5), TINY.trained_window
    for length, factor in ((window + 1, 2), (2 * window, 2), (2 * window + 1, 3), (3 * window + 1, 3.5), (9 * window, 3.5)):
        assert_close(method.inv_freq(TINY, length)[0], frequencies(TINY, network(TINY), factor))
    assert_close(Clex().inv_freq(TINY, 9 * window)[0], frequencies(TINY, None, 9))


def test_with_a_file_chunks_and_one_piece_agree_and_short_texts_are_the_models_own():
    model, ids = tiny_model(max_position_embeddings=64), random_ids(1, 150)
    with torch.no_grad():
        stock = model(ids[:, :64], use_cache=False).logits
        with apply(model, fitted(TINY)):
            whole, past = model(ids, use_cache=False).logits, DynamicCache(config=model.config)
            parts = torch.cat([model(part, **cache_argument(model, past)).logits for part in ids.split(23, 1)], 1)
            assert torch.equal(model(ids[:, :64], use_cache=False).logits, stock)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_it_is_written_as_transformers_longrope(rope):
    method = Clex(file=fitted(rope).file, factor=6.0)
    parameters = method.rope_parameters(rope)
    found, factor = in_transformers(rope, parameters.pop("rope_type"), seq_len=6 * rope.trained_window, **parameters)
    assert_close(found, method.inv_freq(rope, 1)[0].double())
    assert factor == 1.0
    assert Clex(file=method.file).rope_parameters(rope) is None, "no reader of checkpoints follows the text"


def test_an_export_needs_neither_longreach_nor_the_file(tmp_path):
    model = tiny("llama", head_dim=16, max_position_embeddings=64)
    save(model, byte_tokenizer(), tmp_path / "out", method=Clex(file=fitted(TINY).file, factor=4.0), target=256)
    assert verify_export(tmp_path / "out") <= 1e-4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "longrope"}, "was fitted for longrope; fit clex itself"),
        ({"fitted": {}}, "is damaged (up, down, window or factor); fit it again"),
        ({"fitted": _values(TINY, 8.0, network(TINY)) | {"factor": 0.5}}, "is damaged"),
        ({"fitted": _values(TINY, 8.0, network(TINY)) | {"up": [[1.0]]}}, "is damaged"),
        ({"fitted": _values(TINY, 8.0, network(TINY)) | {"down": [["a"]]}}, "is damaged"),
    ],
)
def test_files_that_are_none(changes, says, tmp_path):
    file = tmp_path / "weights.json"
    file.write_text(json.dumps({"format": 1, "method": "clex", "fitted": _values(TINY, 8.0, network(TINY))} | changes))
    with pytest.raises(SpecError) as caught:
        parse(f"clex:file={file}")
    assert says in str(caught.value)


def test_a_file_is_for_one_model_and_as_far_as_it_was_fitted():
    with pytest.raises(
        UnsupportedError, match=r"it is for 8 frequencies and a window of 64 tokens, and this model has 8 and 128; fit it to"
    ):
        apply(tiny_model(), fitted(TINY)).__enter__()
    with pytest.raises(SpecError, match=r"factor=9 is beyond 8, which file="):
        Clex(file=fitted(TINY).file, factor=9.0)


# gradients


def plain_loss(model, ids):
    return cross_entropy(model(ids, use_cache=False).logits[0, :-1], ids[0, 1:])


def own_frequencies(model):
    rotary = rotary_modules(model)[0][2]
    return rotary.full_attention_inv_freq if hasattr(rotary, "full_attention_inv_freq") else rotary.inv_freq


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "glm4", "gemma3", "gpt_oss"])
def test_with_its_own_frequencies_the_model_is_itself(family):
    model, ids = tiny_model(family), random_ids(2, 30)
    rotary = rotary_modules(model)[0][2]
    before = dict(vars(rotary))
    with torch.no_grad():
        stock = model(ids, use_cache=False).logits
        with differentiable(model, own_frequencies(model), 1.0):
            torch.testing.assert_close(model(ids, use_cache=False).logits, stock, rtol=0, atol=1e-5)
        with differentiable(model, own_frequencies(model) / 2, 1.0):
            assert (model(ids, use_cache=False).logits - stock).abs().max() > 0.1
    assert vars(rotary) == before


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "glm4", "gemma3"])
def test_a_loss_is_differentiated_by_the_frequencies(family):
    model, ids = tiny_model(family).double(), random_ids(1, 30)
    leaf = own_frequencies(model).clone().double().requires_grad_()
    with differentiable(model, leaf, 1.0):
        plain_loss(model, ids).backward()
    for pair in (0, 1, len(leaf) - 1):  # norms are computed in float32, which bounds the step from below
        step, sides = torch.zeros_like(leaf), []
        step[pair] = 3e-4
        for moved in (leaf.detach() + step, leaf.detach() - step):
            with torch.no_grad(), differentiable(model, moved, 1.0):
                sides.append(plain_loss(model, ids).item())
        assert leaf.grad[pair].item() == pytest.approx((sides[0] - sides[1]) / 6e-4, rel=1e-2, abs=2e-3)


# the fit


@cache
def aimed_at(factor):
    return frequencies(TINY, network(TINY, 0.2), factor).log()


class MadeBench(Bench):
    """A bench whose loss is how far the logarithms of frequencies are from those of another network."""

    def __init__(self, most=math.inf, worse=False):
        self.trained_window, self.target, self.seed, self.most, self.worse = 64, 256, 0, most, worse
        self.lengths = []

    def rope(self):
        return TINY

    def begin(self, label, evaluations, *, least=1, share=1.0):
        pass

    def _loss(self, inv_freq, factor):
        return (inv_freq.log() - aimed_at(factor)).square().sum()

    def loss(self, method, length):
        losses = self._loss(method.inv_freq(TINY, length)[0].double(), method.factor)
        start = not any(map(any, method.file.data["fitted"]["down"]))
        return -1.0 if self.worse and start else float(losses)

    def slopes(self, method, length, window):
        if len(self.lengths) >= self.most:
            raise BudgetSpent
        self.lengths.append(length)
        leaf = method.inv_freq(TINY, length)[0].double().requires_grad_()
        loss = self._loss(leaf, method.factor)
        loss.backward()
        return loss.item(), leaf.grad.tolist()


def test_the_fit_follows_the_gradient_at_every_factor():
    bench = MadeBench()
    found = ClexFit(steps=60, lr=5e-3).run(bench)
    assert set(bench.lengths) == {128, 192, 256}
    start = _values(TINY, 4.0, Network.new(TINY.dim, 1, 0))
    for factor in (2.0, 3.0, 4.0):
        before, after = (bench.loss(with_weights(values, factor), 256) for values in (start, found))
        assert after < 0.05 * before
    assert (found["window"], found["factor"]) == (64, 4.0)


def test_what_the_fit_began_with_is_kept_where_it_is_better():
    found = ClexFit(steps=5).run(MadeBench(worse=True))
    assert found == _values(TINY, 4.0, Network.new(TINY.dim, 1, 0))


def test_a_spent_budget_ends_the_fit():
    assert ClexFit(steps=50).run(MadeBench(most=3)) != ClexFit(steps=50).run(MadeBench(most=4))


@pytest.mark.parametrize(
    ("settings", "says"), [({"steps": 0}, "steps=0"), ({"width": 0}, "width=0"), ({"lr": 0.0}, "lr=0 must be above 0")]
)
def test_bad_settings_of_the_fit(settings, says):
    with pytest.raises(SpecError, match=says):
        ClexFit(**settings)


class Killed(Exception):  # noqa: N818 - not an error
    pass


class Killer(Progress):
    """Counts tokens, and kills the work after so many."""

    def __init__(self, most=10**9):
        self.most, self.tokens = most, 0

    def start(self, label, total):
        pass

    def advance(self, tokens):
        self.tokens += tokens
        if self.tokens > self.most:
            raise Killed


def test_a_killed_fit_of_a_model_goes_on_as_if_it_had_not_been(tmp_path):
    model = tiny_model(vocab_size=VOCABULARY, max_position_embeddings=32, num_hidden_layers=1)

    def run(rows, **changes):
        options = {"name": "tiny", "method": "clex:steps=8,lr=0.003", "to": 96, "text": real_text()[:20_000], "windows": 2} | changes
        return fit(model, tokenizer(), rows=rows, **options)

    rows, whole = Rows(), Killer()
    wanted = run(rows, progress=whole)
    assert wanted["evaluations"] == 8 + 2
    assert any(map(any, wanted["fitted"]["down"])), "the gradients made it no better"
    assert all(parameter.requires_grad for parameter in model.parameters())
    for most in (100, 400):
        with pytest.raises(Killed):
            run(Rows(tmp_path / "rows.jsonl"), progress=Killer(most))
    rest = Killer()
    assert run(Rows(tmp_path / "rows.jsonl"), progress=rest) == wanted
    assert 0 < rest.tokens < whole.tokens
    stored = {row.identity for row in Rows(tmp_path / "rows.jsonl")}
    assert stored == {row.identity for row in rows}
    results = {one["method"]: one for one in wanted["results"]}
    assert results["clex"]["inside"] == pytest.approx(results[""]["inside"], abs=1e-9)
    assert run(Rows(), evaluations=5)["evaluations"] == 4 + 2
    with apply(model, with_weights(wanted["fitted"])), torch.no_grad():
        assert model(random_ids(1, 90)).logits.isfinite().all()

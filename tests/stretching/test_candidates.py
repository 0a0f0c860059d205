import pytest
import torch

from longreach.core import registry
from longreach.core.errors import InputError, SpecError, UnsupportedError
from longreach.core.spec import parse
from longreach.engine.apply import apply
from longreach.engine.window import window_of
from longreach.positions.base import Rope, TableMethod
from longreach.stretching.candidates import Candidate, applicable, collect, improved
from longreach.testing.models import SCALED, tiny_model

LENGTHS = [(512, 4096), (128, 129), (100, 777), (8, 64), (4096, 131_072), (8192, 10_000)]
SUGGESTING = [method.name() for method in registry.methods() if method.suggest(512, 4096)]


def test_the_methods_that_stretch_suggest_themselves():
    assert {"linear", "ntk", "dynamic_ntk", "yarn", "self_extend", "rerope", "lm_infinite", "sinks"} <= set(SUGGESTING)
    assert {"log_n", "full", "loss"}.isdisjoint(SUGGESTING)


@pytest.mark.parametrize("name", SUGGESTING)
@pytest.mark.parametrize(("window", "target"), LENGTHS)
def test_suggestions_reach_the_target(name, window, target):
    for method in registry.get(name).suggest(window, target):
        assert parse(method.spec) == (method,)
        if isinstance(method, TableMethod):
            places = method.places(window)
            assert len(places) >= target
            assert places.max() < window, "a place that was never trained"
        elif method.kind == "positions":
            rope = Rope(theta=10_000.0, dim=64, trained_window=window)
            scaled, _ = method.inv_freq(rope, target)
            assert scaled[-1] * target <= rope.inv_freq()[-1] * window * 1.001, "the lowest frequency turns further than in training"
        else:
            query, keys = torch.tensor(target - 1), torch.arange(target)
            distance, visible = method.reference(query, keys)
            assert distance[visible].max() < window, "a distance that was never trained"


def test_auto_is_what_every_method_suggests():
    found = collect(["auto"], 512, 4096)
    assert [candidate.spec for candidate in found] == [m.spec for name in SUGGESTING for m in registry.get(name).suggest(512, 4096)]
    assert not any(candidate.named for candidate in found)


def test_names_take_suggestions_and_specs_are_taken_as_they_are():
    found = collect(["sinks", "yarn:factor=3+log_n", "auto", " sinks:window_size=508 "], 512, 4096)
    assert [candidate.spec for candidate in found[:2]] == ["sinks:window_size=508", "yarn:factor=3+log_n"]
    assert len({candidate.spec for candidate in found}) == len(found)
    assert found[0].named
    assert [candidate.spec for candidate in collect(["log_n"], 512, 4096)] == ["log_n"]


def test_an_automatic_factor_reaches_the_target():
    found = collect(["yarn:factor=auto", "linear:factor=auto+log_n", "yarn:factor=8"], 512, 4096)
    assert [candidate.spec for candidate in found] == ["yarn:factor=8", "linear:factor=8+log_n"]
    assert all(candidate.named for candidate in found)


def test_candidates_know_what_their_methods_declare():
    (sinks,) = collect(["sinks"], 512, 4096)
    (yarn,) = collect(["yarn+log_n".replace("yarn", "yarn:factor=8")], 512, 4096)
    assert (sinks.forgets, sinks.bounded_memory) == (True, True)
    assert (yarn.forgets, yarn.bounded_memory) == (False, False)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (["yran"], "did you mean yarn"),
        (["yarn:faktor=8"], "did you mean factor"),
        (["auto", "loss"], "loss is something to measure, not a method to try"),
        ([], "no method to try"),
    ],
)
def test_what_is_no_method_is_refused(wanted, says):
    with pytest.raises((SpecError, InputError), match=says):
        collect(wanted, 512, 4096)


def test_methods_that_improve_others_are_stacked_on_them():
    stacks = improved(Candidate(stack=parse("self_extend:neighbours=64,group=8")))
    assert [candidate.spec for candidate in stacks] == ["self_extend:neighbours=64,group=8+log_n"]
    assert improved(Candidate(stack=parse("sinks:window_size=64"))) == []
    assert improved(Candidate(stack=parse("log_n"))) == []


def test_wrappers_are_stacked_on_positions_methods():
    stacks = improved(Candidate(stack=parse("yarn:factor=8")))
    assert [candidate.spec for candidate in stacks] == ["yarn:factor=8+log_n", "yarn:factor=8+resonance"]
    assert "yarn:factor=8+resonance+log_n" in {each.spec for each in improved(Candidate(stack=parse("yarn:factor=8+resonance")))}


def test_what_is_stacked_on_a_tuned_model_is_tuned():
    tuned = Candidate(stack=parse("yarn:factor=8"), tuned=20)
    assert [one.label for one in (tuned, *improved(tuned))] == [
        "yarn:factor=8, tuned 20 steps",
        "yarn:factor=8+log_n, tuned 20 steps",
        "yarn:factor=8+resonance, tuned 20 steps",
    ]
    assert Candidate(stack=parse("linear:factor=2"), tuned=1).label == "linear:factor=2, tuned 1 step"
    assert Candidate().label == ""


def test_what_the_model_does_not_take_is_listed_with_its_reason():
    model = tiny_model("cohere2", max_position_embeddings=32)
    fitting, refused = applicable(model, collect(["auto"], 32, 128))
    assert "sinks" in {candidate.stack[0].name() for candidate in fitting}
    assert "its full-attention layers use no positions" in refused["linear:factor=4"]
    for candidate in fitting:
        with apply(model, candidate.stack):
            pass
    with pytest.raises(UnsupportedError, match="use no positions"):
        applicable(model, collect(["linear:factor=4"], 32, 128))


@pytest.mark.parametrize("family", SCALED)
def test_checkpoints_that_are_scaled_already_take_every_rotary_method(family):
    model = tiny_model(family)
    fitting, refused = applicable(model, collect(["auto"], window_of(model), 512))
    assert {"yarn:factor=4", "linear:factor=4", "llama3:factor=4"} <= {candidate.spec for candidate in fitting}
    assert not any("scaled" in why for why in refused.values())

"""The suites themselves: nothing escapes them, every check can fail, and an excuse is strict."""

import inspect
import sys
from collections import Counter
from types import ModuleType

import pytest
import torch

from longreach.attention.placement.self_extend import SelfExtend
from longreach.cache.base import BudgetWrapper
from longreach.cache.streaming.sinks import Sinks
from longreach.core import registry
from longreach.core.kinds import kinds
from longreach.engine._store import BandLayer
from longreach.positions.scaling.linear import Linear
from longreach.testing import conformance
from longreach.testing.conformance import (
    biased,
    caches,
    chunks,
    cross,
    engine,
    packed,
    positions,
    samplers,
    sets,
    side_by_side,
    skipping,
    tables,
    text_tasks,
    waiting,
    workflows,
    writing,
)
from longreach.testing.conformance.base import Check, close, same, shapes
from tests.core.test_method import test_a_bad_setting_is_refused_by_name_and_value as bad_settings
from tests.testing.broken import BROKEN, BROKEN_LAYER, SETTING, Idle

KINDS = {kind.name for kind in kinds().values() if kind.suites}
CHECKS = {check.name: check for check in conformance.checks()}
CASES = list(conformance.cases())


def test_every_kind_has_a_suite():
    assert {case.kind for case in CASES} == KINDS
    assert not {name for name, kind in kinds().items() if kind.contract and not kind.suites}


TESTED_ELSEWHERE = {"loss", "loss_inside"}  # tests/evaluation/tasks: they ask nothing


@pytest.mark.parametrize("name", [name for kind in sorted(KINDS) for name in registry.names(kind) if name not in TESTED_ELSEWHERE])
def test_every_setting_of_every_method_is_checked(name):
    module = registry.module(name)
    checked = Counter(case.example for case in CASES if case.name == name and case.check.settings == "EXAMPLES")
    settings = [*module.EXAMPLES, *conformance.stacks(module)]
    assert set(checked) == set(settings)
    standing = [each for each in settings if not isinstance(each, BudgetWrapper)]  # those are checked in stacks, and alone refused
    assert min(checked[each] for each in standing) >= 2
    assert checked[standing[0]] >= 5
    assert {case.example for case in CASES if case.name == name and case.check.settings == "NEUTRAL"} == set(getattr(module, "NEUTRAL", ()))
    assert set(conformance.excuses(module.EXAMPLES[0])) <= set(CHECKS)


@pytest.mark.parametrize("name", [method.name() for method in registry.methods()])
def test_every_bad_setting_is_tried(name):
    module = registry.module(name)
    (tried,) = (mark.args[1] for mark in bad_settings.pytestmark)
    assert [param.values[1] for param in tried if param.values[0] == name] == list(module.BAD)
    assert module.BAD or not inspect.signature(module.METHOD).parameters, "settings that nothing is refused for"


def test_every_check_is_used():
    suites = (
        biased, caches, chunks, cross, engine, packed, positions, samplers, sets, side_by_side, skipping, tables, text_tasks, waiting,
        workflows, writing,
    )  # fmt: skip
    written = {name.removeprefix("check_") for suite in suites for name in vars(suite) if name.startswith("check_")}
    assert written == set(CHECKS) == {case.check.name for case in CASES}
    assert len(CHECKS) == len(conformance.checks()), "two checks of one name"


def test_a_check_that_compares_nothing_fails():
    def check_nothing(method):
        return 0

    check = Check(run=check_nothing, applies=lambda method: True)
    with pytest.raises(AssertionError, match="compared nothing"):
        case_of(check, Linear(factor=2)).run()


def test_comparisons_are_counted_and_strict():
    ones = torch.ones(2, 3)
    assert close(ones, ones + 5e-5, "near") == same(ones, ones.clone(), "equal") == 6
    for ours, wanted, why in (
        (ones, ones + 2e-4, "differs by 0.0002"),
        (ones, ones[:1], "shape"),
        (ones * float("nan"), ones, "not finite"),
    ):
        with pytest.raises(AssertionError, match=why):
            close(ours, wanted, "x")
    with pytest.raises(AssertionError, match="6 of 6 numbers differ"):
        same(ones, ones + 1e-6, "x")


def case_of(check, example):
    return conformance.Trial(kind=example.kind, name=example.name(), example=example, check=check)


# --- shapes of model are drawn, where not all are asked for


def test_every_shape_is_met_by_some_methods_and_all_of_them_where_that_is_asked_for():
    met = []

    def check_shapes(method):
        met.append(shapes(method, "a", "b", "c"))
        return 1

    firsts = [registry.module(method.name()).EXAMPLES[0] for method in registry.methods("attention")]
    check = Check(run=check_shapes, applies=lambda method: True)
    for _ in range(2):
        for example in firsts:
            case_of(check, example).run(thorough=False)
    once, again = met[: len(firsts)], met[len(firsts) :]
    assert once == again
    assert {tuple(names) for names in once} == {("a",), ("a", "b"), ("a", "c"), ("a", "b", "c")}
    case_of(check, firsts[0]).run()
    assert met[-1] == ["a", "b", "c"]
    case_of(check, SelfExtend(neighbours=3, group=2)).run()
    assert met[-1] == ["a"], "a further setting is checked on the first shape"


# --- an excuse is strict


@pytest.fixture
def excused(monkeypatch):
    """A setting whose file excuses it from the check `frequencies`."""
    module = ModuleType("excused")
    module.XFAIL = {"frequencies": "it computes none"}
    monkeypatch.setitem(sys.modules, "excused", module)
    example = type("Excused", (Linear,), {"__module__": "excused"})(factor=2)
    return case_of(CHECKS["frequencies"], example)


def test_an_excuse_for_what_passes_is_a_failure(excused):
    with pytest.raises(AssertionError, match="passes frequencies, which its XFAIL excuses"):
        excused.run()


def test_an_excuse_for_what_fails_is_reported_with_its_reason(excused, monkeypatch):
    monkeypatch.setattr(Linear, "inv_freq", lambda self, rope, seq_len: (-rope.inv_freq(), 1.0))
    with pytest.raises(conformance.Excused, match="it computes none"):
        excused.run()


# --- every check can fail: what each one is there for is broken, and the check has to say so


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_can_fail(name, monkeypatch):
    setting, replaced = BROKEN[name]
    check = CHECKS[name]
    for attribute, value in replaced.items():
        monkeypatch.setattr(sys.modules[check.run.__module__], attribute, value)
    if name in BROKEN_LAYER:
        monkeypatch.setattr(BandLayer, *BROKEN_LAYER[name])
    with pytest.raises(AssertionError):
        check.run(setting)


def test_the_lengths_to_try_follow_from_bands_and_settings():
    assert engine._edges(Sinks(num_sinks=4, window_size=16)) == {4, 16, 19}
    assert engine._edges(SETTING) == {4, 16}
    assert engine._edges(Idle()) == {engine.WINDOW}
    assert set(engine._lengths(SETTING)) == {1, 3, 4, 5, 15, 16, 17, 32, 33}

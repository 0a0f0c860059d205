import dataclasses

import pytest

from longreach.core import registry
from longreach.core.errors import SpecError
from longreach.core.spec import make, parse, unparse
from longreach.positions.scaling.yarn import Yarn


def test_one_method():
    assert parse("yarn:factor=8") == (Yarn(factor=8),)
    assert parse("yarn:factor=8,beta_fast=16") == (Yarn(factor=8, beta_fast=16),)


def test_a_method_without_settings():
    (method,) = parse("log_n")
    assert method.spec == "log_n"


def test_a_stack_keeps_its_order_and_its_spelling():
    methods = parse("yarn:factor=8+log_n:window_size=16")
    assert [method.name() for method in methods] == ["yarn", "log_n"]
    assert unparse(methods) == "yarn:factor=8+log_n:window_size=16"


def test_spaces_do_not_matter():
    assert parse(" yarn: factor = 8 , beta_fast=16 + log_n ") == parse("yarn:factor=8,beta_fast=16+log_n")


def test_whole_numbers_may_be_lengths():
    (method,) = parse("sinks:window_size=1k")
    assert method.window_size == 1024
    assert method.spec == "sinks:window_size=1024"


def test_none_where_a_setting_may_be_left_open():
    assert parse("log_n:window_size=none") == parse("log_n")


def test_defaults_are_left_out():
    assert Yarn(factor=8, beta_fast=32).spec == "yarn:factor=8"


@pytest.mark.parametrize("factor", [1.5, 1.23456789, 1e16, 1e22, 10.000000000000002])
def test_numbers_come_back_exactly(factor):
    method = Yarn(factor=factor)
    assert parse(method.spec) == (method,)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", "empty method"),
        ("yarn:factor=8+", "empty method"),
        (":factor=8", "empty method"),
        ("yarn:", "nothing after the colon"),
        ("yarn", "factor is missing; write yarn:factor="),
        ("yarn:8", "'8' is not a setting; write key=value"),
        ("yarn:factor=", "is not a setting"),
        ("yarn:factor=8,", "is not a setting"),
        ("yarn:factor=eight", "factor=eight is not a number"),
        ("yarn:factor=none", "factor=none is not a number"),
        ("yarn:factor=8,factor=4", "factor is given twice, as 8 and as 4"),
        ("yarn:facter=8", "unknown setting 'facter'; did you mean factor?"),
        ("full:budget=8", "unknown setting 'budget'; it takes: no settings"),
        ("sinks:window_size=1e-2", "window_size=1e-2 is not a whole number"),
        ("sinks:window_size=1.5", "window_size=1.5 is not a whole number"),
        ("sinks:window_size=1.0001k", "is not a whole number"),
        ("yarn:factor=0.5", "factor=0.5 must be at least 1"),
        ("yarn:factor=nan", "factor=nan must be at least 1"),
        ("yarn:factor=inf", "factor=inf must be finite"),
    ],
)
def test_refuses_and_says_why(spec, says):
    with pytest.raises(SpecError, match=says.replace("?", r"\?")):
        parse(spec)


def test_make_takes_values_from_programs():
    assert make(Yarn, {"factor": 8.0, "attention_factor": None}) == Yarn(factor=8)


@pytest.mark.parametrize(
    ("spec", "resolved"),
    [
        ("yarn:factor=auto", "yarn:factor=8"),
        ("yarn:factor=auto,beta_fast=16+resonance", "yarn:factor=8,beta_fast=16+resonance"),
        ("ntk: factor = auto", "ntk:factor=16"),
        ("dynamic_ntk:factor=auto", "dynamic_ntk:factor=2"),
        ("giraffe_power:factor=auto", "giraffe_power:factor=8"),
        ("yarn:factor=3", "yarn:factor=3"),
    ],
)
def test_an_automatic_factor_is_what_the_method_suggests(spec, resolved):
    assert unparse(parse(spec, trained_window=512, target=4096)) == resolved


@pytest.mark.parametrize(
    "name", [method.name() for method in registry.methods() if any(f.name == "factor" for f in dataclasses.fields(method))]
)
def test_every_method_with_a_factor_has_an_automatic_one(name):
    (method,) = parse(f"{name}:factor=auto", trained_window=512, target=4000)
    assert method.factor > 1
    (inside,) = parse(f"{name}:factor=auto", trained_window=512, target=512)
    assert inside.factor == 1, "inside the window there is nothing to stretch"


def test_an_automatic_factor_without_lengths_is_refused():
    with pytest.raises(
        SpecError, match="yarn: factor=auto needs to know the length to reach; give a target, or write the factor as a number"
    ):
        parse("yarn:factor=auto")
    with pytest.raises(SpecError, match="beta_fast=auto is not a number"):
        parse("yarn:factor=8,beta_fast=auto", trained_window=512, target=4096)
    with pytest.raises(SpecError, match="unknown setting 'factor'"):
        parse("resonance:factor=auto", trained_window=512, target=4096)

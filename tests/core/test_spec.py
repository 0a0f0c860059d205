import pytest

from longreach.core.errors import SpecError
from longreach.core.spec import make, parse, unparse
from longreach.positions.yarn import Yarn


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

import dataclasses
import math
import typing

import pytest

from longreach.core import registry
from longreach.core.errors import SpecError
from longreach.core.fitting import Fit, FittedFile
from longreach.core.method import Claim, Method, MethodInfo, format_value, parse_document
from longreach.core.spec import make, parse

METHODS = [method.name() for method in registry.methods()]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_the_contract(name):
    module = registry.module(name)
    method = module.METHOD
    assert issubclass(method, Method)
    assert method.name() == name
    assert method.kind == next(kind for kind, known in registry.modules() if known == name)
    assert isinstance(method.info, MethodInfo)
    assert method.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(method))
    assert module.EXAMPLES, "a method without an example is tested by nothing"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_is_fitted_says_how(name):
    module = registry.module(name)
    assert module.METHOD.info.fitted == hasattr(module, "FIT")
    if module.METHOD.info.fitted:
        assert issubclass(module.FIT, Fit)
        assert module.FIT.name() == name
        assert typing.get_type_hints(module.METHOD)["file"] == FittedFile | None
        make(module.FIT, {})  # without settings, it is fitted as its paper does


@pytest.mark.parametrize("name", METHODS)
def test_every_method_documents_itself(name):
    document = registry.get(name).document()
    assert all(document[part] for part in ("summary", "Paper", "Cost", "Limits", "Differs from the paper")), document


@pytest.mark.parametrize("name", METHODS)
def test_the_docstring_and_info_name_the_same_paper(name):
    method = registry.get(name)
    paper = method.document()["Paper"]
    assert paper.startswith(method.info.title)
    if method.info.paper.startswith("arXiv:"):
        assert method.info.paper in paper


@pytest.mark.parametrize("example", [example for name in METHODS for example in registry.module(name).EXAMPLES], ids=str)
def test_the_spec_of_an_example_makes_the_same_method(example):
    assert parse(example.spec) == (example,)
    assert str(example) == example.spec


@pytest.mark.parametrize(
    ("name", "settings"),
    [pytest.param(name, bad, id=f"{name}-{bad}") for name in METHODS for bad in registry.module(name).BAD],
)
def test_a_bad_setting_is_refused_by_name_and_value(name, settings):
    with pytest.raises(ValueError, match=name) as caught:
        make(registry.get(name), settings)
    assert any(f"{key}={format_value(value)}" in str(caught.value) for key, value in settings.items()), str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (None, "none"), (8.0, "8"), (0.1, "0.1"), (1e16, "1e16"), (1e-7, "1e-07"), (8, "8"), ("words", "words")],
)
def test_values_are_written_as_the_grammar_reads_them(value, text):
    assert format_value(value) == text


def test_a_docstring_comes_apart_at_its_labels():
    parts = parse_document(
        """Name: what it does,
        over two lines.

        Paper: Title, 2024, arXiv:2401.01325
        Cost: little.   Limits: many,
        and more.
        Differs from the paper: nothing.

        Anything else.
        """.replace("\n        ", "\n")
    )
    assert parts["summary"] == "Name: what it does, over two lines."
    assert parts["Paper"] == "Title, 2024, arXiv:2401.01325"
    assert (parts["Cost"], parts["Limits"]) == ("little.", "many, and more.")
    assert parts["Differs from the paper"] == "nothing."


def test_methods_cannot_be_changed():
    (method,) = parse("yarn:factor=8")
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.factor = 4


def test_a_missing_setting_is_named():
    with pytest.raises(SpecError, match="self_extend: group is missing"):
        parse("self_extend:neighbours=16")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.9, 1.0, "holds"), (0.5, 0.89, "does not hold"), (0.8, 0.95, "undecided"), (-math.inf, math.inf, "undecided"), (0.9, 0.9, "holds")],
)
def test_a_claim_is_decided_only_by_the_whole_interval(low, high, verdict):
    assert Claim(text="", metric="", at_least=0.9).verdict(low, high) == verdict
    assert Claim(text="", metric="", at_most=-0.9).verdict(-high, -low) == verdict


def test_a_claim_with_two_bounds():
    claim = Claim(text="", metric="", at_least=0.1, at_most=0.5)
    assert claim.bounds == "at least 0.1 and at most 0.5"
    assert [claim.verdict(*ends) for ends in ((0.2, 0.3), (0.0, 0.2), (0.4, 0.6), (0.6, 0.7), (0.0, 0.05), (0.0, 1.0))] == [
        "holds", "undecided", "undecided", "does not hold", "does not hold", "undecided",
    ]  # fmt: skip

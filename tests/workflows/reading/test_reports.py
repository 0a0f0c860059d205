from decimal import Decimal
from fractions import Fraction

import pytest

from longreach.endpoint.base import ChatModel, Completion
from longreach.workflows.reading._formula import FormulaError, computed
from longreach.workflows.run import reading

REPORT = "\n".join(
    [
        *(f"In note {number} the company explains its policy on leases." for number in range(60)),
        "Revenue was $ 1,250 million in 2023 and $ 1,000 million in 2022.",
        *(f"Risk {number} may affect the outlook of the segment." for number in range(60)),
    ]
)
TASK = "By how much did revenue grow in 2023, relative to 2022?"


class Analyst(ChatModel):
    """Notes the line about revenue, and writes the formulas that it is given."""

    name, window, concurrency = "analyst", 300, 1

    def __init__(self, *formulas):
        self.formulas, self.prompts = list(formulas), []

    def count(self, text):
        return len(text.split())

    def ask(self, request):
        prompt = request.messages[0]["content"]
        self.prompts.append(prompt)
        text = "it grew"
        if prompt.endswith("Notes:"):
            text = next((line for line in prompt.splitlines() if line.startswith("Revenue was")), "NOTHING")
        elif prompt.endswith("Formula:"):
            text = self.formulas.pop(0)
        return Completion(text=text, finish_reason="stop", seconds=0.0)


def test_the_number_is_found_and_the_formula_computed():
    made = reading(Analyst("`divide(subtract(1250, 1000), 1000)`"), [REPORT], TASK, workflow="reports")
    assert made.answer() == "0.25 = divide(subtract(1250, 1000), 1000)"
    assert [call.role for call in made.ledger.calls] == ["notes", "formula"]


def test_a_formula_that_cannot_be_computed_is_asked_for_again_with_the_reason():
    model = Analyst("divide(250, 0)", "subtract(1,250, 1,000)")
    assert reading(model, [REPORT], TASK, workflow="reports").answer() == "250 = subtract(1,250, 1,000)"
    assert "divide(250, 0)" in model.prompts[2]
    assert "it has no value" in model.prompts[2]


@pytest.mark.parametrize("formulas", [("NOTHING",), ("by 25 percent", "a quarter")])
def test_what_is_no_calculation_is_answered_in_words(formulas):
    assert reading(Analyst(*formulas), [REPORT], TASK, workflow="reports").answer() == "it grew"


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("add(0.1, 0.2)", Fraction(3, 10)),
        ("subtract(5829, 5735)", 94),
        ("divide(subtract(5829, 5735), 5735)", Fraction(94, 5735)),
        ("subtract(920, 95), divide(#0, 95), multiply(#1, const_100)", Fraction(825 * 100, 95)),
        ("multiply($1,250.50, 2)", Fraction(2501)),
        ("exp(1.05, 2)", Fraction(11025, 10000)),
        ("add(5%, -3%)", Fraction(2, 100)),
        ("subtract(120,100)", 20),
    ],
)
def test_formulas_are_computed_exactly(formula, value):
    assert abs(Fraction(computed(formula)) - value) < Fraction(1, 10**20)


def test_comparisons_say_yes_or_no():
    assert computed("greater(3, 2)") is True
    assert computed("greater(subtract(1, 2), 0)") is False


@pytest.mark.parametrize(
    "formula",
    [
        "",
        "12", "divide(1, 0)", "sqrt(2, 2)", "add(1)", "add(1, 2, 3)", "add(1, 2", "add(#0, 1)", "add(greater(2, 1), 1)",

        "exp(9, 999999999)",
        "exp(-1, 0.5)", "__import__('os')", "add(1, 2) or add(3, 4)", "add(" * 40 + "1, 1" + ", 1)" * 40,
    ],
)  # fmt: skip
def test_what_is_no_formula_is_refused(formula):
    with pytest.raises(FormulaError):
        computed(formula)


def test_values_are_decimals():
    assert computed("add(1, 2)") == Decimal(3)

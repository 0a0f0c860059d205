"""One protocol for all: the same questions and texts, ties called ties, and what the model does not take left out with its reason."""

import pytest

from longreach.core.errors import InputError
from longreach.evaluation.rows import Rows
from longreach.stretching.controlled import _agreement, compare, specs_meant, specs_of
from longreach.testing.models import tiny_learned, tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

GIVEN = {
    "target": 256, "tasks": "needle", "lengths": (256,), "passages": 2, "seed": 0, "text": real_text(), "name": "tiny",
}  # fmt: skip


def test_all_are_asked_the_same_and_nothing_twice():
    model, rows, asked = tiny_model(vocab_size=VOCABULARY), Rows(), []

    def prepare(spec):
        asked.append(spec)
        return model

    specs = ["", "yarn:factor=2", "self_extend:neighbours=16,group=3"]
    found = compare(prepare, tokenizer(), specs, rows=rows, **GIVEN)
    assert asked == specs
    inputs = {method: {row.settings["input"] for row in rows if row.method == method and row.task == "needle"} for method in specs}
    assert inputs[""] == inputs["yarn:factor=2"] == inputs[specs[2]]
    assert set(found.losses) == set(specs)
    assert [loss.above is None for loss in found.losses.values()].count(True) == 1
    assert all(loss.above is None or loss.above.mean >= 0 for loss in found.losses.values())
    count = len(rows)
    again = compare(prepare, tokenizer(), specs, rows=rows, **GIVEN)
    assert (len(rows), again) == (count, found)


def test_what_the_model_does_not_take_is_left_out():
    model = tiny_learned("gpt2", vocab_size=VOCABULARY)  # a table of 128 positions
    found = compare(lambda spec: model, tokenizer(), ["", "yarn:factor=2", "stretch_positions:factor=3"], rows=Rows(), **GIVEN)
    assert list(found.left_out) == ["", "yarn:factor=2"]
    assert "cannot read beyond 128 tokens" in found.left_out[""]
    assert list(found.losses) == ["stretch_positions:factor=3"]
    with pytest.raises(InputError, match="no method is left to compare"):
        compare(lambda spec: model, tokenizer(), ["yarn:factor=2"], rows=Rows(), **GIVEN)


def test_methods_of_a_kind_and_names_mean_what_they_suggest():
    model = tiny_model()
    assert "yarn:factor=4" in specs_of("positions", model, 512)
    assert specs_meant(["yarn", "linear:factor=3"], model, 512) == ["yarn:factor=4", "linear:factor=3"]
    with pytest.raises(InputError, match="no method of the kind task suggests"):
        specs_of("task", model, 512)


def test_agreement_of_ranks():
    assert _agreement(["a", "b", "c"], {"a": 1.0, "b": 2.0, "c": 3.0}) == 1.0
    assert _agreement(["a", "b", "c"], {"a": 3.0, "b": 2.0, "c": 1.0}) == -1.0
    assert _agreement(["a", "b"], {"a": 3.0, "b": 2.0}) is None

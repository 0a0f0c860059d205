import inspect
import json
import re
from pathlib import Path

import pytest

import generate
import longreach
from longreach.reports import evidence as drawn

ROOT = Path(__file__).resolve().parents[2]

ROW = {
    "method": "yarn",
    "model": "tiny",
    "condition": "tuned",
    "data": "held-out books | prose",
    "setting": "4k tokens",
    "metric": "bits per byte",
    "number": 1.23456,
    "low": 1.1,
    "high": 1.4,
    "of": "8 texts",
    "bar": "at most 1",
    "paper_claim": "holds to 8 windows",
    "verdict": "does not hold",
    "command": "longreach measure tiny",
}
MODEL = {
    "model": "tiny", "family": "llama", "parameters": 182_208, "layers": 3, "heads": 4, "kv_heads": 2, "head_dim": 16, "window": 128,
    "trained_on": "books",
}  # fmt: skip


def length(method, times, rise, found, **changes):
    """A row of the table by length, with a window of 128."""
    return {
        "model": "tiny", "window": 128, "condition": "untuned", "data": "books", "command": "python benchmarks/lengths.py",
        "method": method, "setting": "" if method == "stock model" else f"{method}:factor={times}", "length": 128 * times, "texts": 8,
        "prompts": 20, "loss": 3.0, "rise": rise, "rise_low": None if rise is None else rise - 0.01,
        "rise_high": None if rise is None else rise + 0.01, "found": found, "found_low": found, "found_high": found,
        "tokens_per_s": 1.0, "peak_bytes": 1, "forgets": False, **changes,
    }  # fmt: skip


LENGTHS = [
    *(length("stock model", times, *values) for times, values in ((1, (0.0, 1.0)), (2, (0.5, 0.5)), (4, (1.5, 0.0)))),
    *(length("linear", times, *values) for times, values in ((1, (0.2, 1.0)), (2, (0.04, 0.95)), (4, (0.3, 0.9)))),
    *(length("yarn", times, *values) for times, values in ((1, (0.1, 1.0)), (2, (0.01, 1.0)), (4, (0.02, 0.8)))),
    *(length("sinks", times, *values, forgets=True) for times, values in ((1, (None, None)), (2, (0.01, 0.1)), (4, (0.0, 0.0)))),
]  # fmt: skip


def written(folder, claims=(), lengths=(), models=()):
    """A folder of evidence."""
    for name, rows in (("tiny.jsonl", claims), ("lengths/tiny.jsonl", lengths), ("models/tiny.json", models)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return drawn.read(folder)


@pytest.mark.parametrize(("page", "text"), [pytest.param(*item, id=item[0].name) for item in generate.pages(ROOT).items()])
def test_no_page_is_stale(page, text):
    assert page.read_text(encoding="utf-8") == text, f"{page.name} is stale: run `make docs`"


def test_every_public_name_is_on_the_page_of_the_api_with_every_argument():
    page = generate.api_page()
    for name in longreach.__all__:
        heading = "## " if inspect.isfunction(each := getattr(longreach, name)) else "### "
        part = page.partition(f"\n{heading}{name}\n")[2].partition("\n## ")[0]
        assert part, name
        if heading == "## ":
            assert all(
                f" {argument}: " in part or f"({argument}: " in part
                for argument in inspect.signature(each).parameters
                if argument != "options"
            ), name


OBVIOUS = {"model", "tokenizer", "options"}  # the loaded model and its tokenizer, and what another function's arguments are


def test_every_argument_of_a_public_function_is_explained():
    page = generate.api_page()
    parts = {name: page.partition(f"\n## {name}\n")[2].partition("\n## ")[0] for name in longreach.__all__}
    explained = {name: set(re.findall(r"\w+", " ".join(re.findall(r"^- `([^`]+)`: ", part, re.MULTILINE)))) for name, part in parts.items()}
    for name, part in parts.items():
        known = explained[name].union(*(explained[other] for other in re.findall(r"those of `(?:longreach\.)?(\w+)`", part)))
        if inspect.isfunction(function := getattr(longreach, name)):
            assert inspect.signature(function).parameters.keys() - OBVIOUS <= known, name


def test_arguments_are_listed_and_defaults_are_values():
    measure = generate.api_page().partition("\n## measure\n")[2].partition("\n## ")[0]
    assert "    chunk_size: int=512,\n" in measure
    assert "\n- `trained_window`: tokens, where the config does not say or is wrong.\n" in measure


def test_claims_stand_with_interval_and_verdict(tmp_path):
    rows = [
        ROW,
        ROW | {"method": "linear", "number": 3, "low": 3, "high": 3, "verdict": "holds"},
        ROW | {"method": "ntk", "high": None, "verdict": "undecided"},
    ]
    *_, linear, ntk, yarn = drawn.evidence_page(written(tmp_path, rows, models=[MODEL])).splitlines()
    assert yarn == (
        "| `yarn` | holds to 8 windows | tuned | tiny | 4k tokens | bits per byte | 1.235 | 1.1 to 1.4 | 8 texts, held-out books \\| prose "
        "| at most 1 | **does not hold** | `longreach measure tiny` |"
    )
    assert "| 3 | exact |" in linear
    assert "| 1.1 to any |" in ntk
    assert "| *undecided* |" in ntk


def test_models_are_told_apart(tmp_path):
    other = ROW | {"model": "wide", "number": 0.5}
    (tmp_path / "wide.jsonl").write_text(json.dumps(other), encoding="utf-8")
    page = drawn.evidence_page(written(tmp_path, [ROW, ROW | {"metric": "zeros"}], models=[MODEL]))
    assert "| tiny | llama | 0.2M | 3 | 4 (2) | 16 | 128 | books |" in page
    lines = [line for line in page.splitlines() if line.startswith("| `yarn`")]
    assert [(" tiny " in line, " zeros " in line) for line in lines] == [(True, False), (False, False), (True, True)]


def test_methods_are_drawn_by_length_best_first(tmp_path):
    page = drawn.evidence_page(written(tmp_path, lengths=LENGTHS))
    loss, found = (part.splitlines() for part in page.partition("Loss increase past the window")[2].split("Needles found:"))
    lines = [line for line in loss if line.startswith("|")]
    assert lines[0] == "| method | 1x (128) | 2x (256) | 4x (512) |"
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| `sinks:factor=4` (forgets)", "| `yarn:factor=4`", "| `linear:factor=4`", "| stock model",
    ]  # fmt: skip
    assert lines[2] == "| `sinks:factor=4` (forgets) | not measured | +0.010 ± 0.010 | +0.000 ± 0.010 |"
    assert next(line for line in found if "linear" in line).endswith("| 0.95 (0.95 to 0.95) | 0.90 (0.90 to 0.90) |")


def test_an_encoder_has_a_table_of_what_it_finds_and_none_of_losses(tmp_path):
    encoder = [
        length(method, times, None, found, texts=0, prompts=50)
        for method, shares in (("stock model", (0.6, 0.1)), ("yarn", (0.5, 0.4)))
        for times, found in zip((1, 2), shares, strict=True)
    ]
    evidence = written(tmp_path, lengths=encoder)
    page, of_yarn = drawn.evidence_page(evidence).partition("## By length")[2], "\n".join(drawn.evidence_of("yarn", evidence))
    assert "50 queries at each length" in page
    assert "reads the first 128 tokens" in page
    for text in (page, of_yarn):
        assert "Loss" not in text
        assert "Needles" not in text
        lines = [line for line in text.partition("whose own document is the nearest:")[2].splitlines() if line.startswith("| ")]
        assert lines[2:] == [
            "| `yarn:factor=2` | 0.50 (0.50 to 0.50) | 0.40 (0.40 to 0.40) |",
            "| stock model | 0.60 (0.60 to 0.60) | 0.10 (0.10 to 0.10) |",
        ]


def test_numbers_are_written_between_their_markers(tmp_path):
    evidence = written(tmp_path, [ROW], LENGTHS)
    page = (
        "a <!-- rise yarn 2x tiny -->old<!-- /rise --> b <!-- found stock 2x tiny --><!-- /found -->\n"
        "- <!-- rise yarn 8x tiny --><!-- /rise -->\n"
        "- <!-- claims yarn --><!-- /claims -->\n<!-- reach tiny -->\nold\n<!-- /reach -->\nafter"
    )
    new = drawn.with_numbers(page, evidence)
    assert "a <!-- rise yarn 2x tiny -->+0.010 ± 0.010<!-- /rise --> b " in new
    assert "<!-- found stock 2x tiny -->0.50 (0.50 to 0.50)<!-- /found -->" in new
    assert "<!-- rise yarn 8x tiny -->not measured<!-- /rise -->" in new
    assert "bits per byte, on tiny: 1.235 (1.1 to 1.4), so the claim does not hold<" in new
    reach = [line for line in new.splitlines() if line.startswith("| ")]
    assert reach[2:] == [
        "| `linear:factor=4` | 2x | 4x | +0.200 ± 0.010 |",
        "| `yarn:factor=4` | 4x | 2x | +0.100 ± 0.010 |",
        "| `sinks:factor=4` (forgets) | 4x | nowhere | not measured |",
        "| stock model | nowhere | nowhere | +0.000 ± 0.010 |",
    ]
    assert new.endswith("after")
    assert drawn.with_numbers(new, evidence) == new


def test_a_marker_that_names_no_method_is_refused():
    with pytest.raises(ValueError, match="names no method: yran"):
        drawn.with_numbers("<!-- rise yran 8x nano --><!-- /rise -->", drawn.Evidence())


def test_the_bars_of_the_docs_are_those_of_stretch_and_of_the_claims():
    from longreach.core import registry
    from longreach.evaluation.usable import KEEPS
    from longreach.stretching.choice import RISE_BAR

    found = {claim.at_least for method in registry.methods() for claim in method.info.claims if claim.metric == "retrieval"}
    assert (drawn.RISE_BAR, {drawn.KEEPS}, drawn.KEEPS) == (RISE_BAR, found, KEEPS)


def test_tuned_models_are_said_to_be_tuned(tmp_path):
    page = drawn.evidence_page(written(tmp_path, lengths=[row | {"condition": "tuned"} for row in LENGTHS]))
    assert "one model, tuned under each method on as many tokens; 8 texts of books" in page
    assert "above the untuned stock model's loss" in page


@pytest.mark.parametrize("wrong", [{"paper claim": "typo"}, {"speed": 1}])
def test_evidence_with_other_fields_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=rf"tiny\.jsonl:2: missing or unknown fields: {next(iter(wrong))}"):
        written(tmp_path, [ROW, ROW | wrong])


def test_evidence_that_lacks_a_field_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"tiny\.jsonl:1: missing or unknown fields: command"):
        written(tmp_path, [{key: value for key, value in ROW.items() if key != "command"}])


def test_no_evidence_is_said():
    assert drawn.evidence_page(drawn.Evidence()) == "# Evidence\n\nNo rows are recorded.\n"

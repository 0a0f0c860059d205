import importlib.util
import json
from pathlib import Path

import pytest

from longreach.core.catalogue import catalogue

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
generate = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(generate)

ROW = {
    "method": "yarn:factor=8",
    "model": "tiny",
    "data": "held-out books | prose",
    "setting": "4k tokens",
    "metric": "bits per byte",
    "number": 1.23456,
    "paper_claim": "holds to 8 windows",
    "delivers": False,
    "command": "longreach measure tiny",
}


@pytest.mark.parametrize(("page", "text"), [pytest.param(*item, id=item[0].name) for item in generate.pages(ROOT).items()])
def test_no_page_is_stale(page, text):
    assert page.read_text(encoding="utf-8") == text, f"{page.name} is stale: run `make docs`"


def test_every_method_is_on_its_page_and_in_the_table():
    entries = catalogue()
    page = generate.methods_page(entries)
    table = generate.with_table(f"{generate.BEGIN}{generate.END}", entries)
    assert all(f"\n### {entry.name}\n" in page and f"[`{entry.name}`](docs/methods.md#{entry.name})" in table for entry in entries)


def test_the_rest_of_the_readme_stays():
    readme = f"before\n{generate.BEGIN}\nold\n{generate.END}\nafter\n"
    new = generate.with_table(readme, catalogue("cache"))
    assert new.startswith(f"before\n{generate.BEGIN}\n| kind |")
    assert new.endswith(f"|\n{generate.END}\nafter\n")
    assert generate.with_table(new, catalogue("cache")) == new


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="lacks the markers"):
        generate.with_table("no table here", [])


def test_evidence_shows_rows_as_they_were_measured(tmp_path):
    rows = [ROW, ROW | {"method": "linear:factor=8", "number": 3, "delivers": True}]
    (tmp_path / "lengths.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    lines = generate.evidence_page(generate.read_evidence(tmp_path)).splitlines()
    assert lines[-2].startswith("| `linear:factor=8` | tiny | held-out books \\| prose | 4k tokens | bits per byte: 3 |")
    assert lines[-1] == (
        "| `yarn:factor=8` | tiny | held-out books \\| prose | 4k tokens | bits per byte: 1.235 | holds to 8 windows | **no** "
        "| `longreach measure tiny` |"
    )


@pytest.mark.parametrize("wrong", [{"paper claim": "typo"}, {"speed": 1}])
def test_evidence_with_other_fields_is_refused(tmp_path, wrong):
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(ROW)}\n{json.dumps(ROW | wrong)}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"rows\.jsonl:2: missing or unknown fields: {next(iter(wrong))}"):
        generate.read_evidence(tmp_path)


def test_evidence_that_lacks_a_field_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({key: value for key, value in ROW.items() if key != "command"}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: missing or unknown fields: command"):
        generate.read_evidence(tmp_path)

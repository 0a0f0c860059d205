import re
from pathlib import Path

import pytest

from longreach.core import registry
from longreach.core.catalogue import catalogue
from longreach.reports.evidence import Evidence
from method_pages import explained, method_pages, methods_page, place
from tests.docs.test_generate import LENGTHS, ROW

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = catalogue()


@pytest.fixture(scope="module")
def pages():
    """The pages of all methods, with made-up evidence of yarn."""
    stacked = [row | {"method": "linear+log_n", "setting": "linear:factor=4+log_n"} for row in LENGTHS if row["method"] == "linear"]
    return method_pages(ENTRIES, Evidence(claims=[ROW], lengths=[*LENGTHS, *stacked]))


def test_the_table_has_a_line_for_every_method_that_leads_to_its_file():
    lines = [line for line in methods_page(ENTRIES).splitlines() if line.startswith("| <a id=")]
    assert len(lines) == len(ENTRIES)
    for line, entry in zip(lines, ENTRIES, strict=True):
        assert line.startswith(f'| <a id="{entry.name}"></a>[`{entry.name}`](../src/longreach/')
        assert (ROOT / "docs" / re.search(r"\]\((\.\./[^)]*)\)", line)[1]).is_file()


def test_every_method_has_a_page_with_all_that_its_file_says(pages):
    for entry in ENTRIES:
        page = pages[place(entry)]
        assert page.startswith(f"# {entry.name}\n\n{entry.summary}\n")
        for words in (entry.title, entry.cost, entry.limits, entry.differs):
            assert words in page
        for setting in (*entry.settings, *entry.fit):
            assert re.search(rf"^\| `{setting.name}` \| .* \| .+ \|$", page, re.MULTILINE), (entry.name, setting.name)
        assert f"- [`{entry.name}`]({entry.name}.md): " in pages[f"methods/{entry.kind}/index.md"]


def test_a_meaning_may_be_shared_and_may_hold_colons():
    assert explained("low, high: bounds (>= 0). mode: one of: a, b. x: 1.", ["low", "high", "mode", "x"]) == {
        "low": "bounds (>= 0).",
        "high": "bounds (>= 0).",
        "mode": "one of: a, b.",
        "x": "1.",
    }


def test_a_page_shows_how_the_method_is_used(pages):
    assert 'longreach.apply(model, "yarn:factor=4")' in pages["methods/positions/yarn.md"]
    assert "longreach fit MODEL longrope --to 16384" in pages["methods/positions/longrope.md"]
    assert '+log_n")' in pages["methods/attention/log_n.md"]
    assert "`yarn:factor=4+resonance`" in pages["methods/positions/resonance.md"]
    assert "On a model that was trained under it:" in pages["methods/attention/alibi.md"]
    assert "longreach tune MODEL --sampler pose " in pages["methods/sampler/pose.md"]


def test_a_page_has_the_rows_of_its_method_alone_and_stacked(pages):
    evidence = {name: pages[f"methods/{name}.md"].partition("\n## Evidence\n")[2] for name in ("positions/yarn", "positions/linear")}
    assert "The bar is at most 1: the claim does not hold." in evidence["positions/yarn"]
    assert "| `yarn:factor=4` | +0.100 ± 0.010 | +0.010 ± 0.010 | +0.020 ± 0.010 |" in evidence["positions/yarn"]
    assert "linear" not in evidence["positions/yarn"].replace("llama", "")
    assert "| stock model | " in evidence["positions/linear"]
    assert evidence["positions/linear"].count("| `linear:factor=4+log_n` |") == 2
    assert "| `linear:factor=4+log_n` |" in pages["methods/attention/log_n.md"]


def test_claims_without_a_row_are_named_as_not_measured(pages):
    entry = next(entry for entry in ENTRIES if entry.name == "linear")
    (claim, *_) = registry.get("linear").info.claims
    assert f"- Of {claim.condition} models: {claim.text} (here: " in pages[place(entry)].partition("were not measured yet:")[2]

import csv
import json
import re
from dataclasses import asdict, fields
from html.parser import HTMLParser

import pytest

from longreach.core.errors import InputError
from longreach.evaluation.rows import Row
from longreach.evaluation.usable import summarise
from longreach.reports.report import Saved, report, write
from tests.evaluation.made import outcome

COMMAND = "longreach stretch made --to 512"
VOID = {"meta", "br", "wbr", "hr", "img", "input", "link"}
SAVED = Saved(folder="made-512", exported=True, difference=2e-6, servers={"vllm": "vllm serve MODEL --hf-overrides '{\"a\": 1}'"})


class Page(HTMLParser):
    """Reads a page strictly: every element is closed where it belongs."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.ids, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        assert not {"src", "href", "srcset", "onload", "onclick"} & set(values), "the page must stand alone"
        assert tag not in ("script", "link", "iframe", "img", "object", "embed")
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append((tag, values))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if "style" not in tags:
            self.words.append(data)
        if ("td" in tags or "th" in tags) and "small" not in tags:
            self.tables[-1][-1][-1] += data

    @property
    def text(self):
        return "".join(self.words)


def made(**changes):
    found = outcome(**changes)
    return found, report(found, command=COMMAND, text="a novel & news", saved=SAVED)


def test_the_structure_is_for_programs(tmp_path):
    found, data = made()
    write(data, tmp_path)
    read = json.loads((tmp_path / "report.json").read_text())
    assert read == data
    assert (read["model"], read["trained_window"], read["target"], read["chosen"]) == ("made", 128, 512, "ntk:factor=8")
    assert read["good_enough"] is True
    assert read["reason"] == found.choice.reason
    assert read["rows"] == [asdict(row) for row in summarise(found.rows)]
    assert {"method", "task", "length", "depth", "score", "n", "tokens_per_s", "peak_bytes"} <= set(read["rows"][0])
    assert set(read["versions"]) == {"longreach", "python", "torch", "transformers"}
    assert (read["command"], read["settings"]["seed"], read["text"]["sha256"]) == (COMMAND, 7, "ab" * 32)
    assert read["machine"]["dtype"] == "float32"
    assert read["machine"]["cpus"] >= 1


def test_nothing_chosen_is_null():
    _, data = made(target_right=7)
    assert (data["chosen"], data["good_enough"], data["best"]) == (None, False, "ntk:factor=8")
    assert "No method reaches 512 tokens" in write_and_read(data).text


def write_and_read(data):
    from longreach.reports.report_page import page

    return Page(page(data))


def test_rises_are_paired_by_text_and_octave():
    _, data = made()
    rises = {(one["method"], one["length"]): one for one in data["rises"]}
    assert rises["ntk:factor=8", 64]["mean"] == pytest.approx(0.002)
    assert rises["ntk:factor=8", 512]["mean"] == pytest.approx(0.01)
    assert rises["", 128]["mean"] == 0
    assert rises["", 256] == {
        "model": "made",
        "method": "",
        "length": 256,
        "n": 2,
        **dict.fromkeys(("mean", "low", "high"), pytest.approx(0.7)),
    }


TUNING = {"steps": 300, "words": ["Trained 5 parameters.", "Loss inside the trained window: 3.000 before & 3.010 after."]}


def test_a_tuned_model_stands_beside_the_untuned_one(tmp_path):
    found = outcome(tuned=300)
    data = report(found, command=COMMAND, text="a novel", saved=SAVED, tuning=TUNING)
    assert (data["chosen"], data["chosen_tuned"], data["tuning"]["steps"]) == ("ntk:factor=8", 300, 300)
    tuned, untuned = [one for one in data["methods"] if one["method"] == "ntk:factor=8"]
    assert (tuned["label"], tuned["best"], untuned["label"], untuned["best"]) == (
        "ntk:factor=8, tuned 300 steps",
        True,
        "ntk:factor=8",
        False,
    )
    rises = {(one["model"], one["length"]): one["mean"] for one in data["rises"] if one["method"] == "ntk:factor=8"}
    assert (rises["made", 512], rises["made, tuned 300 steps", 512]) == (pytest.approx(0.01), pytest.approx(-0.1))
    page = write_and_read(data)
    methods, *maps = page.tables
    assert [line[0] for line in methods[1:3]] == ["stock model", "ntk:factor=8, tuned 300 steps"]
    assert [line[3] for line in methods[1:4]] == ["+0.700", "-0.100", "+0.010"]
    assert len(maps) == len(found.standings)
    assert "ntk:factor=8, tuned 300 steps reaches 512 tokens" in page.text
    assert "ntk:factor=8, tuned 300 steps: 0.000 up to 64, 0.000 up to 128, -0.100 up to 256, -0.100 up to 512." in page.text
    for words in (*TUNING["words"], "A model that was tuned must also have kept its loss inside the window"):
        assert words in page.text
    assert "Tuning" not in write_and_read(made()[1]).text


def test_the_sheet_has_every_row(tmp_path):
    _, data = made()
    write(data, tmp_path)
    with open(tmp_path / "report.csv", newline="", encoding="utf-8") as file:
        sheet = list(csv.DictReader(file))
    assert list(sheet[0]) == [field.name for field in fields(Row)]
    assert len(sheet) == len(data["rows"])
    for line, row in zip(sheet, data["rows"], strict=True):
        assert (line["method"], line["task"], int(line["length"])) == (row["method"], row["task"], row["length"])
        assert float(line["score"]) == row["score"]
        assert json.loads(line["settings"]) == row["settings"]


@pytest.mark.parametrize("purpose", ["recall", "streaming"])
def test_the_page_stands_alone_and_names_every_method(purpose, tmp_path):
    found, data = made(purpose=purpose)
    write(data, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not re.search(r"https?://|url\((?!#)|@import", text)
    assert text.startswith("<!DOCTYPE html>")
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert len(page.ids) == len(set(page.ids))
    for one in found.standings:
        assert (one.method or "stock model") in page.text
    for words in (
        found.choice.reason,
        found.rule,
        COMMAND,
        "a novel & news",
        "ab" * 32,
        "linear:factor=4",
        "<scaled>",
        SAVED.servers["vllm"],
    ):
        assert words in page.text


def test_the_page_shows_the_numbers_of_the_rows():
    found, data = made()
    methods, *maps = write_and_read(data).tables
    assert [line[0] for line in methods[1:]] == [one.method or "stock model" for one in found.standings]
    for line, one in zip(methods[1:], found.standings, strict=True):
        assert line[1:5] == [f"{one.inside.mean:.3f}", f"{one.beyond.mean:.3f}", f"{one.rise.mean:+.3f}", f"{one.retrieval.mean:.2f}"]
        assert line[5:7] == ["1,000", "2 MB"]
    assert len(maps) == len(found.standings)
    cells = {(row["method"], row["depth"], row["length"]): row for row in data["rows"] if row["settings"]["metric"] == "likelihood"}
    for table, one in zip(maps, found.standings, strict=True):
        assert table[0] == ["depth", "128", "256", "512"]
        for depth, *scores in table[1:]:
            assert scores == [f"{cells[one.method, float(depth), length]['score']:.2f}" for length in (128, 256, 512)]


def test_charts_are_told_in_words_too():
    _, data = made()
    text = write_and_read(data).text
    assert "ntk:factor=8: 0.002 up to 64, 0.002 up to 128, 0.010 up to 256, 0.010 up to 512." in text
    assert "stock model: 3.500 up to 64" in text


def test_what_a_model_is_called_cannot_change_the_page():
    _, data = made()
    assert "<b>bold</b>" in write_and_read({**data, "model": "<b>bold</b>"}).text


def test_methods_that_break_down_leave_the_chart_and_are_named():
    from longreach.reports._charts import Point, Series, line_chart

    lines = [
        Series(label="good", number=0, points=[Point(end=64, value=3.0), Point(end=128, value=3.1)]),
        Series(label="broken", number=1, points=[Point(end=64, value=3.0), Point(end=128, value=11.25)]),
    ]
    chart = line_chart(lines, title="Loss", window=64, key="k")
    assert "Beyond the top of the chart: broken (up to 11.25)." in chart


def test_files_are_written_whole_into_a_new_folder(tmp_path):
    _, data = made()
    folder = tmp_path / "new" / "folder"
    assert write(data, folder) == [folder / name for name in ("report.html", "report.json", "report.csv")]
    assert len(list(folder.iterdir())) == 3


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    _, data = made()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write a report to"):
        write(data, tmp_path / "file")


def crowded(**changes):
    """A report of thirty methods more, which were only screened: two settings of each, from good to bad."""
    _, data = made(**changes)
    screened = data["methods"][-1]
    names = [f"method{number // 2}:size={number}" for number in range(30)]
    data["methods"] += [{**screened, "method": name, "label": name} for name in names]
    data["rises"] += [{**one, "method": name} for name in names for one in data["rises"] if one["method"] == screened["method"]]
    for kind in ("loss", "needle"):
        data["rows"] += [
            {**row, "method": name} for name in names for row in data["rows"] if (row["method"], row["task"]) == (screened["method"], kind)
        ]
    return data


def drawn(data):
    """What the first chart says in words, and the legend."""
    from longreach.reports.report_page import page

    text = page(data)
    lines = re.search(r'<desc id="rise-d">(.*?)</desc>', text)[1]
    legend = re.search(r'<ul class="legend">(.*?)</ul>', text)[1].replace("<wbr>", "")
    return lines, legend, text


def test_charts_show_the_stock_model_the_chosen_and_the_best():
    lines, legend, text = drawn(crowded())
    shown = [
        "stock model",
        "ntk:factor=8",
        "yarn:factor=4",
        "sinks:window_size=124",
        *(f"method{each}:size={2 * each}" for each in range(5)),
    ]
    for method in shown:
        assert f"{method}: " in lines
        assert method in legend
    assert lines.count(" up to 512.") == legend.count("<li>") == 9
    assert "method5" not in lines
    assert "method0:size=1:" not in lines  # another setting of what is drawn
    assert "25 more are in the table below." in text
    assert "method14" in text.replace("<wbr>", "").partition("<h2>Methods</h2>")[2]


def test_the_chosen_is_drawn_wherever_it_stands():
    data = crowded()
    data["methods"].append(data["methods"].pop(next(i for i, one in enumerate(data["methods"]) if one["method"] == data["best"])))
    lines, legend, _ = drawn(data)
    assert "ntk:factor=8: " in lines
    assert legend.count("<li>") == 9


def test_few_methods_are_all_drawn():
    _, data = made()
    lines, _, text = drawn(data)
    assert lines.count(" up to 512.") == len(data["methods"])
    assert "more are in the table" not in text
    assert "more is in the table" not in text

import csv
import json
import re
from collections import Counter
from dataclasses import asdict, fields, replace
from html.parser import HTMLParser
from typing import get_args

import pytest

from longreach.core.errors import InputError
from longreach.evaluation.memory import Source
from longreach.evaluation.rows import Row
from longreach.evaluation.usable import summarise
from longreach.reports.report import Saved, report, write
from longreach.reports.words import MEMORY_SOURCES
from longreach.stretching.choice import choose
from tests.evaluation.made import outcome, stand
from tests.reports.test_charts import labels

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
    return found, report(found, command=COMMAND, loading={"model": "made"}, text="a novel & news", saved=SAVED)


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


def test_rises_are_paired_by_block_of_text():
    _, data = made()
    rises = {(one["method"], one["length"]): one for one in data["rises"]}
    assert rises["ntk:factor=8", 64]["mean"] == pytest.approx(0.002)
    assert rises["ntk:factor=8", 512]["mean"] == pytest.approx(0.01)
    assert rises["", 128]["mean"] == 0
    assert rises["", 256] == {
        "model": "made",
        "method": "",
        "length": 256,
        "n": 4,  # two blocks of each of two texts
        **dict.fromkeys(("mean", "low", "high"), pytest.approx(0.7)),
    }


TUNING = {"steps": 300, "words": ["Trained 5 parameters.", "Loss inside the trained window: 3.000 before & 3.010 after."]}


def test_a_tuned_model_stands_beside_the_untuned_one(tmp_path):
    found = outcome(tuned=300)
    data = report(found, command=COMMAND, loading={"model": "made"}, text="a novel", saved=SAVED, tuning=TUNING)
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
    *maps, methods, screened = page.tables
    assert [line[0] for line in methods[1:3]] == ["ntk:factor=8, tuned 300 steps", "stock model"]
    assert [line[2] for line in methods[1:4]] == ["-0.100", "+0.700", "+0.010"]
    assert len(maps) == len(found.standings) == len(methods[1:]) + len(screened[1:])
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
    *maps, methods, screened = write_and_read(data).tables
    stock, chosen, *others = found.standings
    shown = [chosen, stock, *others]
    assert [line[0] for line in (*methods[1:], *screened[1:])] == [one.method or "stock model" for one in shown]
    assert methods[0][1:5] == ["Needles found", "Loss increase past the window", "Tokens/s", "Memory"]
    for line, one in zip((*methods[1:], *screened[1:]), shown, strict=True):
        assert line[1:5] == [f"{one.right:.0f} of {one.prompts}", f"{one.rise.mean:+.3f}", "1,000", "2 MB"]
    assert len(maps) == len(shown)
    cells = {(row["method"], row["depth"], row["length"]): row for row in data["rows"] if row["settings"]["metric"] == "likelihood"}
    for table, one in zip(maps, shown, strict=True):
        assert table[0] == ["depth", "128", "256", "512"]
        for depth, *scores in table[1:]:
            assert scores == [f"{cells[one.method, float(depth), length]['score']:.2f}" for length in (128, 256, 512)]


def test_charts_are_told_in_words_too():
    _, data = made()
    text = write_and_read(data).text
    assert "ntk:factor=8: 0.002 up to 64, 0.002 up to 128, 0.010 up to 256, 0.010 up to 512." in text
    assert "stock model: 0.000 up to 64, 0.000 up to 128, 0.700 up to 256, 0.700 up to 512." in text


def test_what_a_model_is_called_cannot_change_the_page():
    _, data = made()
    assert "<b>bold</b>" in write_and_read({**data, "model": "<b>bold</b>"}).text


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
    """What the chart says in words, the names beside its lines, and the page."""
    from longreach.reports.report_page import page

    text = page(data)
    return re.search(r'<desc id="rise-d">(.*?)</desc>', text)[1], [name for name, _ in labels(text)], text


def test_what_was_only_screened_is_folded_and_not_drawn():
    lines, names, text = drawn(crowded())
    assert sorted(names) == ["ntk:factor=8", "stock model (off the chart: up to 0.70)", "yarn:factor=4"]
    assert lines.count(" up to 512.") == 3
    folded = "".join(re.findall(r"<details>.*?</details>", text, re.DOTALL)).replace("<wbr>", "")
    outside = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL).replace("<wbr>", "")
    assert "method14:size=29" in folded
    assert "sinks:window_size=124" in folded
    assert "method" not in "".join(re.findall(r"<code>(.*?)</code>", outside))


def test_no_more_lines_than_colours_are_drawn_and_the_chosen_is_one():
    data = crowded()
    for one in data["methods"]:
        one["screened"] = False
    data["methods"].append(data["methods"].pop(next(i for i, one in enumerate(data["methods"]) if one["method"] == data["best"])))
    lines, names, text = drawn(data)
    assert len(names) == lines.count(" up to 512.") == 8
    assert {"stock model (off the chart: up to 0.70)", "ntk:factor=8"} < set(names)
    assert "26 more are in the table." in text


def test_a_model_that_cannot_read_so_far_is_drawn_up_to_where_it_can():
    _, data = made()
    data["methods"] = [one for one in data["methods"] if one["method"]]
    data["rises"] = [one for one in data["rises"] if one["method"] or one["length"] <= 128]
    lines, names, _ = drawn(data)
    assert "stock model: 0.000 up to 64, 0.000 up to 128." in lines
    assert "stock model" in names


def test_the_page_goes_from_the_result_to_the_details():
    _, _, text = drawn(made()[1])
    assert re.findall(r"<h2>(.*?)</h2>", text) == [
        "Use it", "Retrieval by depth and length", "Loss by position in the text", "Methods", "Not applicable to this model",
        "How the choice was made", "Repeat it",
    ]  # fmt: skip
    assert text.index('class="verdict') < text.index("<h2>Use it</h2>") < text.index('class="facts"')


def test_a_result_that_is_open_is_called_open():
    _, data = made()
    text = write_and_read({**data, "good_enough": False, "undecided": True}).text
    assert "It cannot be told yet whether ntk:factor=8 reaches 512 tokens" in text
    assert "No method reaches" not in text


def read_in_batches(found, sizes):
    """The outcome with prompts at the target in batches: method -> how many of them at once; each batch has its speed and memory."""
    count = Counter()
    rows = []
    for row in found.rows:
        if row.task == "needle" and row.length == found.target and row.method in sizes:
            at = count[row.method, row.settings["metric"]] // sizes[row.method]
            count[row.method, row.settings["metric"]] += 1
            row = replace(row, tokens_per_s=1000.0 + at, peak_bytes=1_000_000 * sizes[row.method] - at)
        rows.append(row)
    return replace(found, rows=tuple(rows))


def test_memory_stands_only_where_as_many_inputs_were_read_at_once():
    found = read_in_batches(outcome(), {"": 8, "ntk:factor=8": 8, "yarn:factor=4": 6, "sinks:window_size=124": 4})
    data = report(found, command=COMMAND, loading={"model": "made"}, text="a novel", saved=SAVED)
    assert {one["method"]: (one["inputs_at_once"], one["memory_compares"]) for one in data["methods"]} == {
        "": (8, True), "ntk:factor=8": (8, True), "yarn:factor=4": (6, False), "sinks:window_size=124": (4, False),
    }  # fmt: skip
    *_, methods, screened = write_and_read(data).tables
    assert [line[4] for line in (*methods[1:], *screened[1:])] == ["2 MB", "2 MB", "", ""]


def test_the_stock_models_memory_is_no_measure_where_it_read_fewer_at_once():
    found = read_in_batches(outcome(), {"": 2, "ntk:factor=8": 8})
    data = report(found, command=COMMAND, loading={"model": "made"}, text="a novel", saved=SAVED)
    assert "stock model: 2 at once, does not compare" in write_and_read(data).text


def test_where_a_text_is_shared_one_is_read_at_once():
    found = outcome()
    rows = [replace(row, task="needle:shared=true") if row.task == "needle" else row for row in found.rows]
    data = report(replace(found, rows=tuple(rows)), command=COMMAND, loading={"model": "made"}, text="a novel", saved=SAVED)
    assert {one["inputs_at_once"] for one in data["methods"]} == {1}
    assert "<code>needle:shared=true</code>" in drawn(data)[2]


def test_what_was_measured_until_it_was_decided_says_so():
    found = outcome()
    data = report(
        replace(found, budget=replace(found.budget, windows=4, samples=None)),
        command=COMMAND, loading={"model": "made"}, text="a novel", saved=SAVED,
    )  # fmt: skip
    assert "until it was decided, on 4 texts at most; depths 0, 1; seed 7" in write_and_read(data).text
    assert "2 texts; 10 questions for each depth and length of a text, depths 0, 1; seed 7" in write_and_read(made()[1]).text


def without_far_answers(found):
    """The outcome of a model that finds too little inside its window: candidates were not asked."""
    rows = [row for row in found.rows if row.task != "needle" or (not row.method and row.length <= found.trained_window)]
    silent = tuple(replace(one, retrieval=None, prompts=0, right=0.0) for one in found.standings)
    choice = choose(silent, "recall", found.target, 0.1)
    return replace(found, rows=tuple(rows), standings=silent, choice=choice, short=0.1)


def test_a_model_that_finds_little_has_no_column_of_needles():
    data = report(without_far_answers(outcome()), command=COMMAND, loading={"model": "made"}, text="a novel", saved=SAVED)
    assert data["bars"]["retrieval"] is None
    assert all(one["retrieval"] is None for one in data["methods"])
    shown = write_and_read(data)
    map_, methods, _ = shown.tables
    assert map_[0] == ["depth", "128"], "what the model itself found"
    assert methods[0][1] == "Loss increase past the window"
    assert "the loss alone decided" in shown.text


def test_a_method_lost_before_the_target_says_how_far_it_was_asked():
    found = outcome()
    stock, *others = found.standings
    rows = [row for row in found.rows if row.method or row.length <= 256]
    short = stand([row for row in rows if not row.method and "loss_inside" not in row.task], complexity=stock.complexity)
    data = report(
        replace(found, rows=tuple(rows), standings=(short, *others)),
        command=COMMAND,
        loading={"model": "made"},
        text="a novel",
        saved=SAVED,
    )
    assert data["methods"][0]["length"] == 256
    text = write_and_read(data).text
    assert f"stock model: {short.right:.0f} of {short.prompts} at 256 tokens" in text
    assert "at 256 tokens" in data["methods"][0]["verdict"]


def test_cells_of_unequal_many_questions_are_counted_so():
    found = outcome()
    first = next(row for row in found.rows if row.task == "needle" and row.method == "ntk:factor=8" and row.length == 512)
    data = report(
        replace(found, rows=tuple(row for row in found.rows if row is not first)),
        command=COMMAND, loading={"model": "made"}, text="a novel", saved=SAVED,
    )  # fmt: skip
    text = write_and_read(data).text
    assert "39 to 40 questions a cell" in text
    assert "40 questions a cell" in text


@pytest.mark.parametrize("source", get_args(Source))
def test_every_way_of_measuring_memory_has_words(source):
    _, data = made()
    data["settings"]["memory"] = source
    assert MEMORY_SOURCES[source] in write_and_read(data).text

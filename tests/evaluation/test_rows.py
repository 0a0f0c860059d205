import json
from dataclasses import replace

import pytest

from longreach.core.errors import InputError
from longreach.evaluation.rows import Row, Rows

ROW = Row(
    task="passkey", model="m", method="", length=512, depth=0.25, seed=0, version="1", settings={"metric": "likelihood", "input": "a"},
    score=1.0, tokens_per_s=10.0, peak_bytes=7,
)  # fmt: skip


def planned(row):
    return replace(row, score=None, tokens_per_s=None, peak_bytes=None)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "needle"}, {"model": "n"}, {"method": "log_n"}, {"length": 513}, {"depth": 0.5}, {"seed": 1}, {"version": "2"},
        {"settings": {"metric": "generation", "input": "a"}},
    ],
)  # fmt: skip
def test_identity_is_all_that_determines_the_score(change):
    rows = Rows()
    rows.append([ROW])
    assert rows.get(planned(ROW)) is ROW
    assert rows.get(planned(replace(ROW, **change))) is None


def test_rows_come_back_from_disk(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    other = replace(ROW, length=1024, depth=None, low=0.1, high=1.0)
    rows = Rows(path)
    rows.append([ROW])
    rows.append([other])
    assert list(Rows(path)) == [ROW, other]
    assert len(path.read_text().splitlines()) == 2


def test_a_second_run_appends(tmp_path):
    path = tmp_path / "rows.jsonl"
    Rows(path).append([ROW])
    before = path.read_bytes()
    Rows(path).append([replace(ROW, length=1024)])
    assert path.read_bytes().startswith(before)
    assert len(Rows(path)) == 2


@pytest.mark.parametrize("kept", [1, 20, 150])
def test_a_torn_last_line_is_healed(tmp_path, kept):
    path = tmp_path / "rows.jsonl"
    Rows(path).append([ROW])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:kept])
    rows = Rows(path)
    assert rows.healed
    assert list(rows) == [ROW]
    assert path.read_bytes() == whole
    assert not Rows(path).healed


def test_a_torn_first_line_is_healed(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"task": "pass')
    assert list(Rows(path)) == []
    assert path.read_bytes() == b""


def test_a_whole_last_line_without_its_end_is_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(ROW.to_json())
    rows = Rows(path)
    assert list(rows) == [ROW]
    assert not rows.healed
    rows.append([replace(ROW, length=1024)])
    assert len(Rows(path)) == 2


@pytest.mark.parametrize("content", ["not json\n", '{"task": "loss"}\n', "[]\n", "some prose without an end", "7\n"])
def test_other_files_are_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=r"rows\.jsonl: .*is not a row"):
        Rows(path)
    assert path.read_text() == content


def test_a_wrong_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{ROW.to_json()}\n{ROW.to_json()[:30]}\n{ROW.to_json()}\n")
    with pytest.raises(InputError, match="line 2 is not a row"):
        Rows(path)


def test_a_folder_is_no_file_of_rows(tmp_path):
    with pytest.raises(InputError, match="cannot read rows"):
        Rows(tmp_path)


def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write rows"):
        Rows(tmp_path / "file" / "rows.jsonl").append([ROW])


def test_the_first_row_of_an_identity_counts():
    rows = Rows()
    rows.append([ROW])
    rows.append([replace(ROW, score=0.0)])
    assert [row.score for row in rows] == [1.0]


def test_lines_are_plain_json():
    assert json.loads(ROW.to_json())["settings"] == {"metric": "likelihood", "input": "a"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(ROW, score=float("nan")).to_json()

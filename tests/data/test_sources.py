import json

import pytest

from longreach.core.errors import InputError
from longreach.data.sources import read_folder


def lines(*records):
    return "\n".join(json.dumps(record) for record in records)


def test_records_give_the_text_in_their_field(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines({"id": 1, "text": 'He said "no".\n'}, {"text": "two"}, {"text": " "}, {"id": 4}))
    (tmp_path / "b.json").write_text(json.dumps([{"text": "three"}, {"text": "four"}]))
    (tmp_path / "c.json").write_text(json.dumps({"text": "five"}))
    (tmp_path / "d.csv").write_text('id,text\n1,"six, with a comma"\n')
    (tmp_path / "e.txt").write_text('{"text": "as it is"}')
    texts = read_folder(tmp_path)
    assert texts.contents == ('He said "no".\n', "two", "three", "four", "five", "six, with a comma", '{"text": "as it is"}')
    assert texts.names[:2] == ("a.jsonl#0", "a.jsonl#1")
    assert texts.told == "Read 1 text file and 6 records of 4 files, by their field 'text'. Left out 2 records without text."


def test_the_field_can_be_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines({"body": "one", "text": "other"}))
    assert read_folder(tmp_path, "body").contents == ("one",)


def test_what_cannot_be_read_is_named_with_the_reason(tmp_path):
    (tmp_path / "good.txt").write_text("text")
    (tmp_path / "damaged.jsonl").write_text('{"text": "a"}\n{"text": ')
    (tmp_path / "other.json").write_text('{"name": "a"}')
    (tmp_path / "binary.csv").write_bytes(b"\x00\x01\xff")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    texts = read_folder(tmp_path)
    assert texts.contents == ("text",)
    assert set(texts.skipped) == {
        "damaged.jsonl is damaged: line 2 is not JSON",
        "other.json has no text in the field 'text'",
        "binary.csv is no UTF-8 text",
        "gone.txt leads nowhere",
    }
    assert texts.told.endswith("and 1 more).")


def test_tables_need_an_extra_that_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"a\.parquet (needs the extra longreach\[data\]|cannot be read)"):
        read_folder(tmp_path)


def test_a_folder_of_records_without_the_field_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines({"body": "one"}))
    with pytest.raises(InputError, match=r"a\.jsonl has no text in the field 'text'; give .* --text-field"):
        read_folder(tmp_path)

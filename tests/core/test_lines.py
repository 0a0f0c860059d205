import json

import pytest

from longreach.core.errors import InputError
from longreach.core.lines import append_lines, read_lines

BEGINNING = b'{"a": '


def parse(line):
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said["a"] if isinstance(said, dict) and "a" in said else None


def read(path):
    return read_lines(path, parse, "note", BEGINNING)


def test_lines_are_appended_in_folders_that_are_made(tmp_path):
    path = tmp_path / "new" / "notes.jsonl"
    append_lines(path, ['{"a": 1}', '{"a": 2}'], "note")
    append_lines(path, ['{"a": 3}'], "note")
    assert read(path) == ([1, 2, 3], False)


@pytest.mark.parametrize("torn", [b"{", b'{"a": ', b'{"a": "\xc3'])
def test_a_torn_last_line_is_taken_off(tmp_path, torn):
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b'{"a": 1}\n' + torn)
    assert read(path) == ([1], True)
    assert path.read_bytes() == b'{"a": 1}\n'


def test_a_last_line_without_its_end_gets_it(tmp_path):
    path = tmp_path / "notes.jsonl"
    path.write_text('{"a": 1}')
    assert read(path) == ([1], False)
    append_lines(path, ['{"a": 2}'], "note")
    assert read(path) == ([1, 2], False)


@pytest.mark.parametrize(("text", "why"), [("prose", "its last line is not a note"), ('{"b": 1}\n', "line 1 is not a note")])
def test_other_files_are_left_alone(tmp_path, text, why):
    path = tmp_path / "notes.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"notes\.jsonl: {why}; mend the file or name another"):
        read(path)
    assert path.read_text() == text


def test_what_cannot_be_read_or_written_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot read notes from .*: Is a directory"):
        read(tmp_path)
    with pytest.raises(InputError, match="cannot write notes to .*: Is a directory"):
        append_lines(tmp_path, ["{}"], "note")

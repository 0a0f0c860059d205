import json

import pytest

from longreach.core.errors import InputError, SpecError
from longreach.core.fitting import FittedFile, check_place, fitted_by, remember, write_fitted
from longreach.core.spec import parse

FITTED = {"window": 128, "factor": 2.0, "long": [1.0, 2.0], "short": None, "start_tokens": 0}
DATA = {"format": 1, "method": "longrope", "fitted": FITTED}


def write(path, **changes):
    write_fitted(path, DATA | {"fitted": FITTED | changes})
    return path


def test_a_spec_says_which_contents(tmp_path):
    file = write(tmp_path / "a.json", factor=3.0)
    (method,) = parse(f"longrope:file={file}")
    assert method.spec == f"longrope:file={file}@{method.file.digest}"
    assert method.file.data["fitted"]["factor"] == 3.0
    assert parse(method.spec) == (method,)
    assert fitted_by(method) == {method.file.digest: method.file.data}


def test_a_file_that_changed_is_another_method(tmp_path):
    file = write(tmp_path / "a.json", factor=4.0)
    (before,) = parse(f"longrope:file={file}")
    write(file, factor=5.0)
    (after,) = parse(f"longrope:file={file}")
    assert before != after
    assert before.spec != after.spec
    assert parse(before.spec)[0].file.data["fitted"]["factor"] == 4.0, "what was seen once is kept"


def test_contents_that_are_nowhere_are_not_replaced_by_others(tmp_path):
    file = write(tmp_path / "a.json", factor=6.0)
    says = r"longrope: file=.*@0123456789ab: the file holds other contents by now \(@[0-9a-f]{12}\); leave @0123456789ab out"
    with pytest.raises(SpecError, match=says):
        parse(f"longrope:file={file}@0123456789ab")


def test_equal_are_equal_contents_under_one_name():
    one, same, other = FittedFile.of("a", DATA), FittedFile.of("a", json.loads(json.dumps(DATA))), FittedFile.of("b", DATA)
    assert one == same != other
    assert hash(one) == hash(same)
    assert one.digest == other.digest == remember(DATA)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    file = write(tmp_path / "a.json", factor=7.0)
    before = file.read_bytes()

    def full(*args, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("longreach.core.fitting.write_text", full)
    with pytest.raises(InputError, match=r"cannot write .*a\.json: No space left on device"):
        write(file, factor=8.0)
    assert file.read_bytes() == before


def test_places_are_checked(tmp_path):
    check_place(tmp_path / "new.json")
    check_place(write(tmp_path / "old.json"))
    (tmp_path / "notes.txt").write_text("mine")
    for place, says in (
        (tmp_path / "notes.txt", "exists and is not a file of `longreach fit` or `longreach heads`; choose another name"),
        (tmp_path / "a+b.json", r"cannot be named in a spec, where \+ has a meaning"),
        (tmp_path / "none" / "a.json", "none is not a folder that can be written to"),
        (tmp_path, "exists and is not a file"),
    ):
        with pytest.raises(InputError, match=says):
            check_place(place)


@pytest.mark.parametrize(
    ("method", "command"), [("duo", "`longreach heads MODEL --save FILE`"), ("longrope", "`longreach fit`"), ("clex", "`longreach fit`")]
)
def test_a_file_that_is_missing_or_another_is_told_with_the_command_that_writes_it(tmp_path, method, command):
    with pytest.raises(SpecError) as missing:
        parse(f"{method}:file={tmp_path / 'none.json'}")
    assert str(missing.value).endswith(f": the file cannot be read: No such file or directory; {command} makes one")
    for name, text, says in (("prose", "prose", "(not JSON)"), ("list", "[]", "(it has no method with what was fitted)")):
        (tmp_path / name).write_text(text)
        with pytest.raises(SpecError) as other:
            parse(f"{method}:file={tmp_path / name}")
        assert str(other.value).endswith(f": not a file of {command} {says}")

import pytest

from longreach.core.files import replacing_file, write_text


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "one")

    def half():
        with replacing_file(path) as partial:
            partial.write_text("tw")
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert path.read_text() == "one"
    write_text(path, "two")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_as_readable_as_any_other(tmp_path):
    (tmp_path / "usual").write_text("x")
    write_text(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize(("name", "why"), [("folder", "Is a directory"), ("nowhere/a", "No such file"), ("file/a", "Not a directory")])
def test_where_nothing_can_be_written_is_told_by_the_name_that_was_given(tmp_path, name, why):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=why) as caught, replacing_file(tmp_path / name):
        pytest.fail("the block ran")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / name), None)
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file"}

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

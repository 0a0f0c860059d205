from tests.cli.snapshot import FILE, as_text


def test_the_command_line_is_frozen():
    frozen = FILE.read_text(encoding="utf-8")
    assert as_text() == frozen, (
        "the command line differs from tests/cli/snapshot.json. People's scripts stand on it: if the change is meant, write the file "
        "anew with `python tests/cli/snapshot.py` and name the change in CHANGELOG.md"
    )

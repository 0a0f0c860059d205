import sys

from longreach.data.stdlib import stdlib_files, stdlib_text


def test_the_splits_share_no_module():
    train, held_out = stdlib_files("train"), stdlib_files("held-out")
    assert train
    assert held_out
    assert not {path.parts[path.parts.index(f"python3.{sys.version_info.minor}") + 1] for path in train} & {
        path.parts[path.parts.index(f"python3.{sys.version_info.minor}") + 1] for path in held_out
    }


def test_the_held_out_text_begins_with_prose_and_is_long():
    text = stdlib_text("held-out")
    assert text.startswith('The "assert" statement')
    assert len(text) > 1_000_000
    assert text == stdlib_text("held-out")


def test_the_language_reference_is_not_trained_on():
    assert 'The "assert" statement' not in stdlib_text("train")

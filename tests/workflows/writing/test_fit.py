import pytest

from longreach.workflows.writing._fit import beginning, ending


def words(text):
    return len(text.split())


def letters(text):
    """A tokenizer that knows letters alone."""
    return len(text)


TEXT = "The ship came home. Nobody had waited for it, and the harbour was dark. The captain lit a lamp."


@pytest.mark.parametrize("count", [words, letters])
@pytest.mark.parametrize("most", [0, 1, 3, 7, 12, 18, 19, 60, 200])
def test_what_is_shown_fits_and_is_part_of_the_text(count, most):
    start, end = beginning(TEXT, most, count), ending(TEXT, most, count)
    assert count(start) <= most
    assert count(end) <= most
    assert TEXT.startswith(start.removesuffix(" …"))
    assert TEXT.endswith(end)
    assert (start == TEXT) == (end == TEXT) == (count(TEXT) <= most)


def test_as_much_is_shown_as_fits():
    even = "- " * 500
    for most in (1, 17, 100, 499):
        assert words(ending(even, most, words)) == most
        assert words(beginning(even, most, words)) == (most if most > 1 else 0)  # with the sign that there is more


def test_the_end_begins_with_a_sentence_where_one_is_near():
    assert ending(TEXT, 16, words) == "Nobody had waited for it, and the harbour was dark. The captain lit a lamp."
    assert ending(TEXT, 12, words) == "for it, and the harbour was dark. The captain lit a lamp."


def test_chinese_is_cut_between_characters():
    assert ending("长城很长。" * 9, 12, letters) == "长城很长。" * 2

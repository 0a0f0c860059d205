import pytest

from longreach.conversation.answer import spoken

STOPS = ("\nUser:", "\nTool:")


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([" Hel", "lo\nUs", "er: and"], "Hello"),
        ([" Hello\n", "Us", "ers are here", "\nTool", ": x"], "Hello\nUsers are here"),
        (["\n", "User:", " hi"], ""),
        ([" ", "\n", "x", "  \n\n"], "x"),
        (["a\n", "\nTool"], "a\n\nTool"),
        ([], ""),
    ],
)
def test_an_answer_ends_where_the_model_speaks_for_others(pieces, said):
    assert "".join(spoken(iter(pieces), STOPS)) == said


def test_text_is_not_held_back_longer_than_it_has_to_be():
    pieces = spoken(iter(["one ", "two\n", "three"]), STOPS)
    assert list(pieces) == ["one", " two", "\nthree"]


def test_nothing_is_read_beyond_a_stop():
    def written():
        yield "a\nUser:"
        raise AssertionError

    assert list(spoken(written(), STOPS)) == ["a"]


def test_with_a_chat_template_pieces_are_as_they_are():
    assert list(spoken(iter([" a ", "\nUser:"]), ())) == [" a ", "\nUser:"]

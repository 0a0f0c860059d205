import pytest

from longreach.core.errors import InputError
from longreach.workflows.spans import Document, Span, characters, merged, missing


def test_spans_are_merged_where_they_touch():
    assert merged([Span(0, 5, 9), Span(1, 0, 2), Span(0, 0, 5), Span(0, 20, 20), Span(0, 7, 8)]) == (Span(0, 0, 9), Span(1, 0, 2))
    assert characters([Span(0, 0, 4), Span(0, 2, 6), Span(2, 1, 2)]) == 7


def test_what_is_missing_is_the_rest_without_blanks():
    documents = [Document(name="a", text="one two  \n"), Document(name="b", text="three")]
    assert missing(documents, [Span(0, 0, 7)]) == (Span(1, 0, 5),)
    assert missing(documents, [Span(0, 4, 7), Span(1, 1, 2)]) == (Span(0, 0, 4), Span(1, 0, 1), Span(1, 2, 5))
    assert missing(documents, []) == (Span(0, 0, 10), Span(1, 0, 5))


def test_an_empty_document_is_refused():
    with pytest.raises(InputError, match="letter is empty"):
        Document(name="letter", text=" \n")

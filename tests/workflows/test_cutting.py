import random

import pytest

from longreach.core.errors import InputError
from longreach.workflows.cutting import TextChunk, cut, fitting
from longreach.workflows.spans import Document, Span


def words(text):
    return len(text.split())


def prose(sentences, seed=0):
    rng = random.Random(seed)
    said = [
        " ".join(rng.choice(("red", "green", "blue", "Ωμέγα", "日本")) for _ in range(rng.randint(3, 9))) + "." for _ in range(sentences)
    ]
    return "\n\n".join(" ".join(said[at : at + 5]) for at in range(0, sentences, 5))


@pytest.mark.parametrize("most", [1, 7, 20, 64, 10_000])
@pytest.mark.parametrize(
    "text", [prose(40), "word " * 300, "x" * 500, "\n\n \n" + prose(3) + "  \n"], ids=["prose", "no marks", "no spaces", "blank"]
)
def test_chunks_cover_the_text_in_order_and_fit(text, most):
    count = words if " " in text else len
    chunks = cut([Document(name="a", text=text)], most, count)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert all(1 <= count(chunk.text) == chunk.tokens <= most for chunk in chunks)
    at = 0
    for chunk in chunks:
        (span,) = chunk.spans
        assert not text[at : span.start].strip()
        assert chunk.text == text[span.start : span.end].strip()
        at = span.end
    assert not text[at:].strip()


def test_chunks_end_at_sentences_where_they_can():
    chunks = cut([Document(name="a", text=prose(60))], 30, words)
    assert all(chunk.text.endswith(".") for chunk in chunks)
    assert sum(chunk.tokens for chunk in chunks) / len(chunks) > 20, "chunks are much shorter than they may be"


def test_few_counts_are_needed():
    counted = []

    def count(text):
        counted.append(text)
        return words(text)

    chunks = cut([Document(name="a", text=prose(2000))], 100, count)
    assert len(counted) < 7 * len(chunks)


def test_several_documents_are_named_and_short_ones_share_a_chunk():
    documents = [Document(name=f"letter {number}", text=f"Dear {number}, all is well.") for number in range(4)]
    first, second = cut(documents, 15, words)
    assert first.text == "[letter 0]\nDear 0, all is well.\n\n[letter 1]\nDear 1, all is well."
    assert second.spans == (Span(2, 0, 20), Span(3, 0, 20))


def test_room_for_nothing_is_refused():
    with pytest.raises(InputError, match="leaves no room"):
        cut([Document(name="a", text="text")], 0, words)
    with pytest.raises(InputError, match="does not hold a character"):
        cut([Document(name="a", text="text")], 1, lambda text: 2 * len(text))


def test_as_many_as_fit():
    chunks = [TextChunk(text="a b c", spans=(), tokens=3) for _ in range(5)]
    assert [len(fitting(chunks, room)) for room in (0, 4, 5, 14, 15, 100)] == [0, 0, 1, 2, 3, 5]

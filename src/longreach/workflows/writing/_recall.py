"""Passages of documents, or of what is written already, that match what is to be written next: as many as there is room for."""

from collections.abc import Iterable, Sequence

from longreach.workflows.cutting import TextChunk, cut
from longreach.workflows.lexical import LexicalIndex
from longreach.workflows.spans import Document, Span
from longreach.workflows.writing._fit import Count, words_that_fit

PASSAGE_TOKENS = 96  # of a passage, at most


class Recall:
    """Passages that can be found by what they say."""

    def __init__(self, passages: Sequence[TextChunk], count: Count) -> None:
        self._passages, self._count = passages, count
        self._index = LexicalIndex([passage.text for passage in passages])

    def best(self, query: str, room: int) -> TextChunk | None:
        """The passages that match a query best, best first, until so many tokens are full; None where not a word fits."""
        return filled((self._passages[number] for number in self._index.ranked(query)), room, self._count)


def filled(passages: Iterable[TextChunk], room: int, count: Count) -> TextChunk | None:
    """The first passages as one, as long as they fit into so many tokens, with the last one cut so that the room is full."""
    text, spans = "", list[Span]()
    for passage in passages:
        longer = f"{text}\n\n{passage.text}" if text else passage.text
        if count(longer) <= room:
            text, spans = longer, [*spans, *passage.spans]
            continue
        begun = longer.removesuffix(passage.text)
        if end := words_that_fit(passage.text, lambda end, begun=begun, passage=passage: count(begun + passage.text[:end]), room):  # type: ignore[misc]
            text = begun + passage.text[:end]
            spans += [Span(span.document, span.start, span.start + end) for span in passage.spans]
        break
    return TextChunk(text=text, spans=tuple(spans), tokens=count(text)) if text else None


def passages_of(documents: Sequence[Document], most: int, count: Count) -> list[TextChunk]:
    """Passages of at most so many tokens, whose places are those of their text, without white space around it."""
    found = []
    for number, document in enumerate(documents):
        for chunk in cut([document], most, count):
            (span,) = chunk.spans
            start = document.text.index(chunk.text, span.start)
            found.append(TextChunk(text=chunk.text, spans=(Span(number, start, start + len(chunk.text)),), tokens=chunk.tokens))
    return found

"""Cuts documents into chunks that cover all of them, each as long as a window allows, at paragraphs, sentences or words."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from longreach.workflows.counting import WindowError
from longreach.workflows.spans import Document, Span

Count = Callable[[str], int]

_FULL = 0.9  # of the room, from which a chunk is not lengthened any more
_TRIES = 4
# Where to cut, the best first, and the share of a chunk that is given up for it at most: paragraphs, sentences or lines, words.
_ENDS = ((re.compile(r"\n\s*\n"), 0.3), (re.compile(r"[.!?]['\")\]]*\s+|\n"), 0.6), (re.compile(r"\s+"), 0.6))


@dataclass(frozen=True, kw_only=True)
class TextChunk:
    """Text of documents, as a model is shown it. Args: spans: what it shows. tokens: of the text. number: from 0, in reading order."""

    text: str
    spans: tuple[Span, ...] = field(repr=False)
    tokens: int
    number: int = 0


def cut(documents: Sequence[Document], most: int, count: Count) -> list[TextChunk]:
    """Chunks of at most `most` tokens, in reading order, that together are all text of the documents.

    Where there are several documents, each chunk names those that it shows, and short ones share a chunk.
    Raises: WindowError for room that holds no text.
    """
    if most < 1:
        raise WindowError("the window leaves no room for a part of the text; give a larger window (--window), or shorter answers")
    named = len(documents) > 1
    pieces: list[TextChunk] = []
    for number, document in enumerate(documents):
        heading = f"[{document.name}]\n" if named else ""
        room = most - (count(heading) if heading else 0)
        for span in _spans(document.text, number, room, count):
            text = heading + document.text[span.start : span.end].strip()
            pieces.append(TextChunk(text=text, spans=(span,), tokens=count(text)))
    packed = _packed(pieces, most, count) if named else pieces
    return [TextChunk(text=each.text, spans=each.spans, tokens=each.tokens, number=at) for at, each in enumerate(packed)]


def fitting(chunks: Iterable[TextChunk], room: int) -> list[TextChunk]:
    """As many of the first chunks as fit into so many tokens, each with a blank line behind it."""
    found: list[TextChunk] = []
    for chunk in chunks:
        if (room := room - size_of(chunk)) < 0:
            break
        found.append(chunk)
    return found


def size_of(chunk: TextChunk) -> int:
    """Tokens that a chunk takes up in a prompt, with the blank line behind it."""
    return chunk.tokens + 2


def _spans(text: str, document: int, most: int, count: Count) -> Iterator[Span]:
    at, per_token = 0, 4.0  # characters, by what was cut before
    while at < len(text):
        end = _end(text, at, most, per_token, count)
        if text[at:end].strip():
            per_token = max(0.5, (end - at) / max(1, count(text[at:end])))
            yield Span(document, at, end)
        at = end


def _end(text: str, start: int, most: int, per_token: float, count: Count) -> int:
    """Where the chunk that begins at `start` ends: as far as fits, at a good place."""
    low, high = start, len(text) + 1  # the longest known to fit, the shortest known not to
    guess = min(len(text), start + max(1, int(most * per_token)))
    for _ in range(_TRIES):
        end = _border(text, start, guess)
        tokens = count(text[start:end].strip())
        if tokens <= most:
            low = max(low, end)
            if end == len(text) or tokens >= _FULL * most:
                return end
            guess = min(len(text), high - 1, start + max(end - start + 1, int((end - start) * most / max(1, tokens))))
        else:
            high = min(high, end)
            guess = min(end - 1, start + max(1, int((end - start) * most / tokens * 0.97)))
        if guess <= low:
            break
    return low if low > start else _shortest(text, start, most, count)


def _shortest(text: str, start: int, most: int, count: Count) -> int:
    """The end of a beginning that fits, wherever it is, where no good place does. Raises: WindowError where not even a character fits."""
    end = min(len(text), start + max(1, most))
    while count(text[start:end].strip()) > most:
        if end == start + 1:
            raise WindowError(f"a window that leaves {most} tokens for text does not hold a character of it; give a larger one (--window)")
        end = start + (end - start) // 2
    return end


def _border(text: str, start: int, wanted: int) -> int:
    """The last good place to cut that is not far before `wanted`."""
    if wanted >= len(text):
        return len(text)
    for pattern, given_up in _ENDS:
        found = [match.end() for match in pattern.finditer(text, wanted - int((wanted - start) * given_up), wanted)]
        if found and found[-1] > start:
            return found[-1]
    return max(wanted, start + 1)


def _packed(pieces: Sequence[TextChunk], most: int, count: Count) -> list[TextChunk]:
    """Neighbours together, as long as they fit."""
    found: list[TextChunk] = []
    for piece in pieces:
        if found and found[-1].tokens + piece.tokens <= most:
            text = f"{found[-1].text}\n\n{piece.text}"
            if (tokens := count(text)) <= most:
                found[-1] = TextChunk(text=text, spans=(*found[-1].spans, *piece.spans), tokens=tokens)
                continue
        found.append(piece)
    return found

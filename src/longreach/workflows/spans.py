"""Documents, and places in them. Places are in characters, so that they mean the same whatever model reads them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from longreach.core.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A text to be read. Args: name: that people know it by. Raises: InputError for an empty one."""

    name: str
    text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise InputError(f"{self.name} is empty")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A place in a document. Args: document: its number, from 0. start, end: in characters."""

    document: int
    start: int
    end: int


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same places in order, with those that overlap or touch as one."""
    found: list[Span] = []
    for span in sorted(span for span in spans if span.start < span.end):
        last = found[-1] if found else None
        if last is not None and last.document == span.document and span.start <= last.end:
            found[-1] = Span(last.document, last.start, max(last.end, span.end))
        else:
            found.append(span)
    return tuple(found)


def missing(documents: Sequence[Document], spans: Iterable[Span]) -> tuple[Span, ...]:
    """The places of documents that no span covers; those of white space alone are left out."""
    found: list[Span] = []
    covered = merged(spans)
    for number, document in enumerate(documents):
        at = 0
        for span in [*(span for span in covered if span.document == number), Span(number, len(document.text), len(document.text))]:
            if document.text[at : span.start].strip():
                found.append(Span(number, at, span.start))
            at = span.end
    return tuple(found)


def characters(spans: Iterable[Span]) -> int:
    """How many characters the places have, each counted once."""
    return sum(span.end - span.start for span in merged(spans))

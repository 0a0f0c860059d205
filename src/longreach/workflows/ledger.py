"""The ledger of a run: which parts of the documents a model was shown, which it never saw, and which the answer goes back to."""

import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from longreach.workflows.budget import Cost
from longreach.workflows.spans import Document, Span, characters, merged, missing

_EXCERPT = 160  # characters of a place that are shown


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A call of the model.

    Args: number: from 1, as they were answered. role: what it was for. read, written: tokens. spans: of the documents in its prompt.
    cut: whether the answer ended at its limit. text: of the answer.
    """

    number: int
    role: str
    read: int
    written: int
    spans: tuple[Span, ...]
    cut: bool
    text: str


@dataclass(kw_only=True)
class Ledger:
    """What happened to each part of the documents.

    Args: documents: all that there is to read. workflow: its spec. task: as it was given. window: tokens. exact: whether tokens were
    counted, not estimated. calls: in the order in which they were answered. support: what the answer goes back to. replayed: calls that a
    recording answered. made_up: sentences of notes that were left out, for they named a number that the text does not have. stopped: why
    there is no answer, if there is none.
    """

    documents: Sequence[Document]
    workflow: str
    task: str
    window: int
    exact: bool
    calls: list[Call] = field(default_factory=list)
    support: tuple[Span, ...] = ()
    replayed: int = 0
    made_up: int = 0
    stopped: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def note(self, role: str, read: int, written: int, spans: Sequence[Span], *, cut: bool, text: str) -> None:
        """Write down a call."""
        with self._lock:
            number = len(self.calls) + 1
            self.calls.append(Call(number=number, role=role, read=read, written=written, spans=tuple(spans), cut=cut, text=text))

    @property
    def read(self) -> tuple[Span, ...]:
        """The places that were in a prompt."""
        return merged(span for call in self.calls for span in call.spans)

    @property
    def unread(self) -> tuple[Span, ...]:
        """The places that were in none."""
        return missing(self.documents, self.read)

    @property
    def coverage(self) -> float:
        """Share of all characters that were in a prompt."""
        total = sum(len(document.text) for document in self.documents)
        return 1 - characters(self.unread) / total if total else 1.0

    @property
    def cut(self) -> int:
        """Answers that ended at their limit of tokens, and not by themselves."""
        return sum(call.cut for call in self.calls)

    @property
    def cost(self) -> Cost:
        """Of all calls, those that were answered from a recording too."""
        read, written = sum(call.read for call in self.calls), sum(call.written for call in self.calls)
        return Cost(calls=len(self.calls), read=read, written=written)

    def __str__(self) -> str:
        """A few words: what was read, and what the answer goes back to."""
        parts = [f"read {self.coverage:.0%} of the text"] if self.documents else []
        if self.unread:
            parts.append(f"{len(self.unread)} part{'s' * (len(self.unread) != 1)} of it never seen")
        if self.support:
            total = sum(len(document.text) for document in self.documents)
            parts.append(f"the answer goes back to {len(self.support)} place{'s' * (len(self.support) != 1)} "
                         f"({characters(self.support) / total:.1%} of it)")  # fmt: skip
        parts.append(str(self.cost))
        if self.replayed:
            parts.append(f"{self.replayed} of the calls answered from the recording")
        if self.cut:
            parts.append(f"{self.cut} answer{'s' * (self.cut != 1)} cut at the limit of tokens")
        if self.made_up:
            parts.append(f"{self.made_up} sentence{'s' * (self.made_up != 1)} of notes left out for numbers that the text does not have")
        if not self.exact:
            parts.append("tokens are estimates")
        return "; ".join(parts)

    def excerpt(self, span: Span) -> str:
        """How a place begins, on one line."""
        text = " ".join(self.documents[span.document].text[span.start : min(span.end, span.start + 2 * _EXCERPT)].split())
        return text if len(text) <= _EXCERPT else f"{text[: _EXCERPT - 1]}…"

    def to_dict(self) -> dict[str, Any]:
        """For programs and pages: places with their excerpts, and the calls without their texts."""

        def shown(spans: Sequence[Span]) -> list[dict[str, Any]]:
            return [asdict(span) | {"excerpt": self.excerpt(span)} for span in spans]

        calls = [{key: value for key, value in asdict(call).items() if key not in ("text", "spans")} for call in self.calls]
        return {
            "workflow": self.workflow,
            "task": self.task,
            "window": self.window,
            "exact": self.exact,
            "documents": [{"name": document.name, "characters": len(document.text)} for document in self.documents],
            "read": shown(self.read),
            "unread": shown(self.unread),
            "support": shown(self.support),
            "coverage": self.coverage,
            "cost": asdict(self.cost),
            "replayed": self.replayed,
            "cut": self.cut,
            "made_up": self.made_up,
            "stopped": self.stopped,
            "calls": [call | {"spans": [asdict(span) for span in made.spans]} for call, made in zip(calls, self.calls, strict=True)],
        }

    def to_json(self) -> str:
        """The same as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

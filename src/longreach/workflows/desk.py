"""The desk that a workflow works at: the task, the documents, and a model that it asks within its window and budget."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from longreach.core.progress import SILENT, Progress
from longreach.endpoint.base import ChatModel, Completion, Request
from longreach.endpoint.errors import EndpointError
from longreach.workflows.budget import Meter
from longreach.workflows.counting import BYTES_PER_TOKEN, TokenCounter, WindowError
from longreach.workflows.cutting import TextChunk, cut
from longreach.workflows.ledger import Ledger
from longreach.workflows.spans import Document, Span, merged
from longreach.workflows.wording import says_nothing


@dataclass(frozen=True, kw_only=True)
class Note:
    """What the model wrote. Args: spans: of the documents that it goes back to. cut: whether it ended at its limit of tokens.
    entropy: of the model's tokens on average, nats, where it was asked for.
    """

    text: str
    spans: tuple[Span, ...] = ()
    cut: bool = False
    entropy: float | None = None

    @property
    def empty(self) -> bool:
        """Whether it says nothing on the task."""
        return says_nothing(self.text)


Part = str | TextChunk | Note

_NUMBER = re.compile(r"\d(?:[\d.,]*\d)?")
_SHARE = BYTES_PER_TOKEN / 5  # of estimated tokens, in tokens of prose, which have up to 5 bytes on average
_DIGITS = 3  # of a number that nobody counts up
_SENTENCE = re.compile(r".*?(?:[.!?]['\")\]]*(?:\s+|$)|\n+|$)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Query:
    """A call that is to be made.

    Args: parts: of the prompt; texts, chunks of the documents, and notes. most: tokens of the answer. role: what it is for, in a word.
    seed: of the sampling, with a temperature above 0. logprobs: alternatives of each token whose log-probabilities are needed.
    any_size: how long the prompt is hangs on answers before it, so that an estimate takes it to fill the window. again: the answer stands
    in later prompts, and must not take up more room there than `most`.
    """

    parts: tuple[Part, ...]
    most: int
    role: str
    temperature: float = 0.0
    seed: int | None = None
    logprobs: int | None = None
    any_size: bool = False
    again: bool = False

    @property
    def prompt(self) -> str:
        """The text of the prompt."""
        return "\n\n".join(part if isinstance(part, str) else part.text.strip() for part in self.parts)

    @property
    def spans(self) -> tuple[Span, ...]:
        """What of the documents stands in the prompt itself, each place as it was cut."""
        return tuple(span for part in self.parts if isinstance(part, TextChunk) for span in part.spans)

    @property
    def sources(self) -> tuple[Span, ...]:
        """What it goes back to, by way of notes, too."""
        return merged(span for part in self.parts if not isinstance(part, str) for span in part.spans)


class Desk:
    """Everything that a workflow may use. Threads are its own business: `ask_all` asks as many at a time as the model takes.

    `task` stands in every prompt word for word; whoever writes a workflow puts it there.

    Args: model: that answers. window: tokens that prompt and answer may have together. answer_tokens: of the answer to the task.
    estimates: the model is not the real one, and the run is to show what it may cost.
    """

    def __init__(
        self,
        model: ChatModel,
        task: str,
        documents: Sequence[Document],
        *,
        window: int,
        answer_tokens: int,
        meter: Meter,
        ledger: Ledger,
        count: TokenCounter,
        progress: Progress = SILENT,
        estimates: bool = False,
    ) -> None:
        self.task, self.documents = task, tuple(documents)
        self.window, self.answer_tokens, self.count = window, answer_tokens, count
        self.ledger = ledger
        self._model, self._meter, self._progress = model, meter, progress
        self._estimates = estimates

    @property
    def note_tokens(self) -> int:
        """Of notes, where a workflow's settings leave it open: a sixth of the window, so that two and their merger fit into it."""
        return max(8, self.window // 6)

    def room(self, *around: Part, most: int) -> int:
        """Tokens that a prompt has left beside its other parts and the answer's `most`."""
        return self.window - most - self.count.chat(Query(parts=(*around, ""), most=most, role="").prompt) - 2

    def chunks(self, *around: Part, most: int, beside: int = 0) -> list[TextChunk]:
        """All documents in chunks that fit beside other parts of a prompt, `beside` tokens more, and the answer's `most`.

        Raises: WindowError for a window without room.
        """
        return cut(self.documents, self.room(*around, most=most) - beside, self.count)

    def ask(self, *parts: Part, most: int, role: str, any_size: bool = False, again: bool = False) -> Note:
        """Ask the model. Raises: BudgetError; EndpointError; WindowError for a prompt that does not fit into the window."""
        return self._asked(Query(parts=parts, most=most, role=role, any_size=any_size, again=again))

    def ask_all(self, queries: Iterable[Query]) -> list[Note]:
        """Ask many things that do not hang on one another, in order. Raises: as `ask`, for the first that fails."""
        asked = list(queries)
        sizes = [self._reserved(query) for query in asked]
        answers = self._model.many(self._request(query) for query in asked)
        return [self._noted(query, size, said) for query, size, said in zip(asked, sizes, answers, strict=True)]

    def grounded(self, note: Note, *sources: Part) -> Note:
        """Notes without the sentences that name a number which neither their sources nor the task have; the ledger counts them.

        Notes are to be in the words of the text, so such a number is made up. One or two digits may be a count, and stay.
        """
        known = _numbers(Query(parts=(*sources, self.task), most=1, role="").prompt)
        sentences = _SENTENCE.findall(note.text)
        fine = [sentence for sentence in sentences if known >= _numbers(sentence)]
        if len(fine) == len(sentences):
            return note
        self.ledger.made_up += len(sentences) - len(fine)
        return replace(note, text="".join(fine).strip())

    def first_part(self, text: str, most: int) -> str:
        """A text, or its beginning of so many tokens at most, to the end of a sentence where there is one."""
        if self.count(text) <= most:
            return text
        while text and (tokens := self.count(text)) > most:
            text = text[: int(len(text) * most / tokens * 0.98)]
        return text[: text.rindex(".") + 1] if "." in text else text

    def _asked(self, query: Query) -> Note:
        size = self._reserved(query)
        return self._noted(query, size, self._model.ask(self._request(query)))

    def _reserved(self, query: Query) -> int:
        """Tokens of the prompt, once the budget has them."""
        size = self.count.chat(query.prompt)
        if size + query.most > self.window:
            raise WindowError(
                f"a prompt of {size} tokens ({query.role}) and an answer of up to {query.most} do not fit into a window of "
                f"{self.window}; give a larger window (--window), shorter answers, or a shorter task"
            )
        if self._estimates and query.any_size:
            size = self.window - query.most
        self._meter.reserve(size, query.most)
        return size

    def _most(self, query: Query) -> int:
        """Tokens that the model may write: fewer where they are estimates, by which a token of theirs may be more than one."""
        safe = self.count.exact or self._estimates or not query.again
        return query.most if safe else max(1, int(query.most * _SHARE))

    def _request(self, query: Query) -> Request:
        return Request(
            messages=[{"role": "user", "content": query.prompt}],
            most_tokens=self._most(query),
            temperature=query.temperature,
            seed=query.seed,
            logprobs=query.logprobs,
        )

    def _noted(self, query: Query, size: int, said: Completion | EndpointError) -> Note:
        if isinstance(said, EndpointError):
            raise said
        text, cut_off = said.text.strip(), said.cut
        if query.again and self.count(text) > query.most:  # it was counted otherwise than it was written
            text, cut_off = self.first_part(text, query.most), True
        written = self.count(text) if said.completion_tokens is None else min(said.completion_tokens, query.most)
        self._meter.settle((size, query.most), (size, written))
        self.ledger.note(query.role, size, written, query.spans, cut=cut_off and query.logprobs is None, text=text)
        self._progress.advance(size)
        return Note(text=text, spans=query.sources, cut=cut_off, entropy=entropy_of(said))


def kept(notes: Iterable[Note]) -> list[Note]:
    """The notes that say something."""
    return [note for note in notes if not note.empty]


def entropy_of(said: Completion) -> float | None:
    """Mean entropy of the tokens that were written, nats: of the alternatives that are given, and of the rest as one; None without any."""
    found = [_entropy([math.exp(share) for share in token.top.values() if share is not None]) for token in said.logprobs or () if token.top]
    return sum(found) / len(found) if found else None


def _entropy(shares: Sequence[float]) -> float:
    return -sum(share * math.log(share) for share in [*shares, max(0.0, 1 - sum(shares))] if share > 0)


def _numbers(text: str) -> set[str]:
    """The numbers of a text that have three digits or more, without commas."""
    found = {number.replace(",", "") for number in _NUMBER.findall(text)}
    return {number for number in found if sum(map(str.isdigit, number)) >= _DIGITS}


def with_spans(note: Note, spans: Iterable[Span]) -> Note:
    """The same words, going back to these places alone."""
    return replace(note, spans=merged(spans))

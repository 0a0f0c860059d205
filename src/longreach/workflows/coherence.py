"""BooookScore: the share of a summary's sentences that leave no reader confused, as a model marks them, one by one.

    score = mean over summaries of (1 - confusing sentences / sentences)

Source: BooookScore: A systematic exploration of book-length summarization in the era of LLMs, 2023, arXiv:2310.00785
Differs from the paper: a prompt of our own; sentences are told apart by their marks, not by NLTK; a sentence that the model says nothing
usable about is left out and counted, where the authors' program asks without end. Its annotation files are read as they are.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreach.core.errors import InputError
from longreach.endpoint.base import ChatModel, Completion, Request
from longreach.endpoint.errors import EndpointError

ERRORS: Mapping[str, str] = {
    "entity omission": "somebody or something appears without being introduced",
    "event omission": "something that happened is needed to understand it, and is not told",
    "causal omission": "a reason or a purpose is missing",
    "salience": "it does not matter for what the text is about",
    "discontinuity": "the time, the place or the teller changes without a word",
    "duplication": "it says again what was said",
    "inconsistency": "it contradicts what was said",
    "language": "its grammar or its wording cannot be understood",
}
_TRIES = 3
_MOST = 100  # tokens of an annotation
_END = re.compile(r"(?<=[.!?])[\"'\u201d\u2019)]*\s+(?=[\"'\u201c\u2018(]*[A-Z0-9])")
_TITLE = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|Sr|Jr|[A-Z])\.$")
_QUESTIONS, _TYPES = re.compile(r"questions?:\s*(.+)", re.IGNORECASE), re.compile(r"types?:\s*(.+)", re.IGNORECASE)
_NONE = "no confusion"


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """A sentence of a summary. Args: questions: that it leaves open, in words. types: of the errors in it, keys of `ERRORS`."""

    sentence: str
    questions: str = ""
    types: tuple[str, ...] = ()

    @property
    def confusing(self) -> bool:
        """Whether there is an error in it."""
        return bool(self.questions or self.types)


@dataclass(frozen=True, kw_only=True)
class Coherence:
    """Args: annotations: of the sentences that could be annotated, in order. failed: sentences that could not."""

    annotations: tuple[Annotation, ...]
    failed: int = 0

    @property
    def score(self) -> float:
        """From 0 to 1. Raises: InputError where no sentence was annotated."""
        if not self.annotations:
            raise InputError("no sentence of the summary was annotated")
        return 1 - sum(each.confusing for each in self.annotations) / len(self.annotations)


def coherence(model: ChatModel, summary: str) -> Coherence:
    """Have a model annotate every sentence of a summary. Raises: InputError for an empty one; EndpointError."""
    sentences = sentences_of(summary)
    if not sentences:
        raise InputError("the summary is empty")
    found: dict[int, Annotation] = {}
    for attempt in range(_TRIES):
        left = [number for number in range(len(sentences)) if number not in found]
        said = model.many(_request(summary, sentences[number], attempt) for number in left)
        for number, answer in zip(left, said, strict=True):
            if (annotation := _annotation(sentences[number], answer)) is not None:
                found[number] = annotation
    return Coherence(annotations=tuple(found[number] for number in sorted(found)), failed=len(sentences) - len(found))


def mean_score(of: Iterable[Coherence]) -> float:
    """BooookScore of several summaries: the mean of theirs. Raises: InputError for none."""
    scores = [each.score for each in of]
    if not scores:
        raise InputError("there is no summary to score")
    return sum(scores) / len(scores)


def sentences_of(text: str) -> list[str]:
    """The sentences of a text.

    >>> sentences_of('Mr. Grey left. "Why?" asked J. Wall! Nobody knew.')
    ['Mr. Grey left.', '"Why?" asked J. Wall!', 'Nobody knew.']
    """
    found: list[str] = []
    for part in (part.strip() for line in text.splitlines() for part in _END.split(line)):
        if found and _TITLE.search(found[-1]):
            found[-1] += f" {part}"
        elif part:
            found.append(part)
    return found


def load_annotations(path: str | Path) -> dict[str, Coherence]:
    """Book -> its annotations, from a file of the authors' program (its second version, which lists all sentences).

    Raises: InputError for a file that is none, and for one of the first version, which lists only confusing sentences.
    """
    try:
        said = json.loads(Path(path).read_text(encoding="utf-8"))
        found = {book: Coherence(annotations=tuple(_read(each, about) for each, about in of.items())) for book, of in said.items()}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, AttributeError, TypeError, KeyError):
        raise InputError(f"{path} is no file of annotations: book -> sentence -> questions and types") from None
    if found and all(each.confusing for of in found.values() for each in of.annotations):
        raise InputError(f"{path} lists confusing sentences only, and a score needs all of them")
    return found


def _read(sentence: str, about: Mapping[str, Any]) -> Annotation:
    types = about["types"] or ()
    listed: Sequence[str] = types.split(", ") if isinstance(types, str) else types
    return Annotation(sentence=sentence, questions=str(about["questions"] or ""), types=tuple(listed))


def _request(summary: str, sentence: str, attempt: int) -> Request:
    errors = "\n".join(f"{name}: {meaning}" for name, meaning in ERRORS.items())
    again = "\n\nYour last answer had not these two lines." * attempt
    return Request(
        messages=[
            {
                "role": "user",
                "content": f"Below are a summary of a long text and one sentence of it. Say whether the sentence leaves a reader confused "
                "in a way that nothing in the summary resolves, and that makes the story hard to follow.\n\n"
                f"Kinds of confusion:\n{errors}\n\n"
                f"Summary:\n{summary}\n\nSentence:\n{sentence}\n\nWrite two lines:\nQuestions: what a reader would ask, or {_NONE}\n"
                f"Types: the kinds of confusion, with commas between them, or {_NONE}{again}",
            }
        ],
        most_tokens=_MOST,
    )


def _annotation(sentence: str, said: Completion | EndpointError) -> Annotation | None:
    """What an answer says of a sentence; None where it says nothing usable. Raises: EndpointError."""
    if isinstance(said, EndpointError):
        raise said
    questions, types = _QUESTIONS.search(said.text), _TYPES.search(said.text)
    if questions is None or types is None:
        return None
    asked, kinds = questions[1].strip(), types[1].strip().lower().rstrip(".")
    if kinds == _NONE:
        return Annotation(sentence=sentence) if _NONE in asked.lower() else None
    listed = tuple(kind.strip() for kind in kinds.split(","))
    return Annotation(sentence=sentence, questions=asked, types=listed) if all(kind in ERRORS for kind in listed) else None

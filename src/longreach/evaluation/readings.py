"""Reads a text once and asks many questions of it, each about a fact of its own that nothing else in the text has seen.

At a fact's place the reading halts, the fact is read aside, its keys and values are set apart, and the text goes on as if it had never
been there. A question is asked where the reading has come to its length: for as long as that takes, the fact's keys and values stand in
place of as many tokens of the text, and then question and answer are taken back. So the loss of the text is that of the text alone, no
fact competes with another one, and a text of T tokens costs one pass over T tokens for any number of facts, depths and lengths.

Differs from a prompt with one fact: the text between fact and question has not seen the fact.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from longreach.core.errors import LongreachError
from longreach.core.progress import SILENT, Progress
from longreach.decoding.reading import new_cache, next_token_losses, read
from longreach.engine.patches import Patch, patchable, patched, read_aside, taken_back
from longreach.engine.prompt import prompt_end
from longreach.engine.whole_length import whole_length
from longreach.evaluation.rows import Row
from longreach.evaluation.text import Ids

Wanted = Callable[[Row], bool]

_ALL: Literal["all"] = "all"
_LAST: Literal["last"] = "last"
_TRIED = 8  # tokens that show what a cache is made of


@dataclass(frozen=True, kw_only=True)
class Question:
    """A fact and what is asked about it.

    Args: place: index of the text's token that the fact begins in place of. stop: tokens of the text that the question comes after. fact,
    asked: ids. answers: ids of each candidate; their first ids differ. right: index of the true one. rows: for its score by likelihood and
    by generation.
    """

    place: int
    stop: int
    fact: Sequence[int]
    asked: Sequence[int]
    answers: Sequence[Sequence[int]]
    right: int
    rows: tuple[Row, Row]


@dataclass(frozen=True, kw_only=True)
class TextReading:
    """A text to be read once.

    Args: losses: rows for the mean loss of the tokens that their setting `span` names. questions: in order. pieces: where the reading also
    halts, so that what is left of a reading is read in the same pieces, to the same last bit.
    """

    ids: Ids
    losses: tuple[Row, ...] = ()
    questions: tuple[Question, ...] = ()
    pieces: frozenset[int] = frozenset()

    @property
    def groups(self) -> list[tuple[Row, ...]]:
        """The rows that come together, in the order in which they come: where the reading has come to, a loss before a question."""
        losses = [(span(row)[1], 0, (row,)) for row in self.losses]
        questions = [(question.stop, 1, question.rows) for question in self.questions]
        return [rows for *_, rows in sorted([*losses, *questions], key=lambda group: group[:2])]

    @property
    def halts(self) -> frozenset[int]:
        """Tokens after which something is read aside or asked."""
        return self.pieces.union(at for one in self.questions for at in (one.place, one.stop))

    @property
    def needed(self) -> int:
        """Tokens of the text to read."""
        return max([span(row)[1] for row in self.losses] + [question.stop for question in self.questions], default=0)

    def after(self, done: int, wanted: Wanted) -> "TextReading":
        """What is still wanted where so many tokens are read."""
        losses = tuple(row for row in self.losses if span(row)[1] > done and wanted(row))
        return replace(self, losses=losses, questions=tuple(one for one in self.questions if one.stop > done and wanted(one.rows[0])))

    def missing(self, known: Callable[[Row], object]) -> "TextReading":
        """What of it is not known yet."""
        losses = tuple(row for row in self.losses if not known(row))
        questions = tuple(question for question in self.questions if not all(map(known, question.rows)))
        return replace(self, losses=losses, questions=questions, pieces=self.halts)


def span(row: Row) -> tuple[int, int]:
    """The tokens [begin, end) of the text that a row of a loss is the mean of, counted from 0."""
    begin, end = row.settings["span"]
    return begin, end


def merged(readings: Sequence[TextReading]) -> list[TextReading]:
    """The readings, those of one text as one."""
    found: list[TextReading] = []
    for reading in readings:
        for number, other in enumerate(found):
            shorter, longer = sorted((reading.ids, other.ids), key=len)
            if np.array_equal(shorter, longer[: len(shorter)]):
                losses, questions = (*other.losses, *reading.losses), (*other.questions, *reading.questions)
                found[number] = TextReading(ids=longer, losses=losses, questions=questions)
                break
        else:
            found.append(reading)
    return found


def can_share(model: PreTrainedModel) -> bool:
    """Whether one reading can serve many questions with this model, under the methods that are applied now."""
    cache = new_cache(model)
    for _ in read(model, torch.ones(1, _TRIED, dtype=torch.long, device=model.device), cache=cache):
        pass
    return patchable(cache)


def read_text(
    model: PreTrainedModel, reading: TextReading, *, wanted: Wanted, chunk_size: int, progress: Progress = SILENT
) -> Iterator[list[Row]]:
    """Read the text; yields rows with their scores as soon as they are known: nats a token, or 1 for a right answer and 0 for a wrong one.

    wanted: whether a row's score is still of interest, asked when its turn comes, so that answers decide what else is read. Rows say how
    fast the text was read up to them; asking takes no part in that.

    Raises: LongreachError where the model's numbers are not finite.
    """
    state = _State(model, torch.from_numpy(np.asarray(reading.ids)).long()[None].to(model.device), chunk_size)
    halts = sorted({0, reading.needed, *(at for at in reading.halts if at < reading.needed)})
    with whole_length(model, len(reading.ids)), prompt_end(len(reading.ids)):
        for begin, end in zip(halts, [*halts[1:], None], strict=True):
            for question in reading.questions:
                if question.place == begin < question.stop and wanted(question.rows[0]):
                    state.set_aside(question)
            for question in reading.questions:
                if question.stop == begin and wanted(question.rows[0]):
                    yield state.ask(question)
            if end is None or not (left := reading.after(begin, wanted)).needed:
                return
            for done in state.read_on(end, bool(left.losses), progress):
                if found := [state.loss(row) for row in left.losses if span(row)[1] <= done and wanted(row)]:
                    yield found
                left = reading.after(done, wanted)
                if done < end and not left.needed:
                    return


@dataclass
class _State:
    """Of a text being read. Args: text: [1, T]."""

    model: PreTrainedModel
    text: Tensor
    chunk_size: int
    cache: Cache = field(init=False)
    patches: dict[Any, Patch] = field(default_factory=dict)
    done: int = 0
    seconds: float = 0.0
    losses: Tensor = field(init=False)  # [T] float64, of each token; nan where it is not known

    def __post_init__(self) -> None:
        self.cache = new_cache(self.model)
        self.losses = torch.full(self.text.shape[1:], math.nan, dtype=torch.float64)

    def read_on(self, end: int, with_losses: bool, progress: Progress) -> Iterator[int]:
        """Read the text's tokens up to `end`, chunk by chunk; yields how many of the text are read."""
        while self.done < end:
            began = time.perf_counter()
            part, logits = self.text[:, self.done : min(end, self.done + self.chunk_size)], _ALL if with_losses else _LAST
            for _, given in read(self.model, part, cache=self.cache, chunk_size=self.chunk_size, logits=logits, progress=progress):
                if with_losses:
                    targets = self.text[0, self.done + 1 :][: given.shape[1]]  # the text's last token predicts nothing
                    self.losses[self.done + 1 :][: len(targets)] = next_token_losses(given[0, : len(targets)], targets).double().cpu()
            self.seconds += time.perf_counter() - began
            self.done += part.shape[1]
            yield self.done

    def loss(self, row: Row) -> Row:
        """The row with its score."""
        begin, end = span(row)
        if not math.isfinite(score := self.losses[begin:end].mean().item()):
            raise LongreachError(f"the loss is not a finite number at length {row.length}; load the model with another dtype (float32)")
        return self._scored(row, score)

    def set_aside(self, question: Question) -> None:
        """Read the fact here, and keep what it left."""
        with taken_back(self.cache):
            self._forward(question.fact)
            self.patches[id(question)] = read_aside(self.cache, self.done)

    def ask(self, question: Question) -> list[Row]:
        """Put the fact in its place, ask, and leave no trace of it."""
        right = question.answers[question.right]
        with patched(self.cache, self.patches.pop(id(question))), taken_back(self.cache):
            logits = self._forward([*question.asked, *right[:-1]])[len(question.asked) - 1 :]
        candidates = logits[0, [answer[0] for answer in question.answers]].float()
        if not torch.isfinite(candidates).all():
            where = f"at length {question.rows[0].length}"
            raise LongreachError(f"the logits are not finite numbers {where}; load the model with another dtype (float32)")
        likely = int(candidates.argmax()) == question.right
        written = logits.argmax(-1).tolist() == list(right)  # what greedy decoding would write as long as it is right
        return [self._scored(row, float(score)) for row, score in zip(question.rows, (likely, written), strict=True)]

    def _forward(self, ids: Sequence[int]) -> Tensor:
        """[n, V]: the logits after each of the ids, in one forward pass."""
        tokens = torch.tensor([list(ids)], device=self.model.device)
        for _, logits in read(self.model, tokens, cache=self.cache, chunk_size=len(ids), logits="all"):
            return logits[0]
        raise ValueError("nothing to read")

    def _scored(self, row: Row, score: float) -> Row:
        return replace(row, score=score, tokens_per_s=self.done / self.seconds if self.seconds else None)

"""What retrieval tasks share: prompts of an exact length around a fact, ten candidate answers, and two ways to score an answer."""

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from longreach.core.errors import InputError, LongreachError, SpecError
from longreach.core.method import at_least
from longreach.core.progress import SILENT, Progress
from longreach.decoding.encoder import Encoder
from longreach.decoding.reading import new_cache, prefill
from longreach.evaluation.asking.passage import Ask
from longreach.evaluation.readings import Question, TextReading
from longreach.evaluation.tasks.base import Case, NoRoom, TaskPlan, stack
from longreach.evaluation.text import Ids
from longreach.evaluation.text_task import Ability, TextTask

ANSWER_ROOM = 8  # tokens of a cell's length that are kept for the answer, so that prompt and answer fit the length together
CANDIDATES = 10
METRICS = ("likelihood", "generation")
PROMPTS, QUESTIONS = 10, 5  # of each depth and length, where a plan does not say: of prompts in all, of questions to each shared text

_SEARCHED = 64  # tokens to each side of the wanted depth that are searched for the end of a line or sentence


class Wording(NamedTuple):
    """The words of one prompt, without its filler. `fact` and `question` begin with a line end; the question ends before the space.

    `asked`: the question as one asks a person.
    """

    head: str
    fact: str
    question: str
    asked: str


class Frame(NamedTuple):
    """A prompt without its filler, as ids. `question` ends with what all answers begin with (a space token, in some tokenizers)."""

    head: list[int]
    fact: list[int]
    question: list[int]
    answers: list[list[int]]
    right: int

    @property
    def shortest(self) -> int:
        """The least length that holds the prompt and an answer."""
        return len(self.head) + len(self.fact) + len(self.question) + ANSWER_ROOM


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Args: ids: [length - ANSWER_ROOM]. answers: ids of each candidate; their first ids differ. right: index of the true one."""

    ids: Ids
    answers: list[list[int]]
    right: int


@dataclass(frozen=True, kw_only=True)
class RetrievalCase(Case):
    """A prompt to be answered."""

    prompt: Prompt


@dataclass(frozen=True, kw_only=True)
class RetrievalTask(TextTask):
    """A number is stated at some depth of a long text and asked for at its end.

    `likelihood`: whether the right number is the most likely of ten that differ in their first digit. `generation`: whether greedy
    decoding writes it. One pass over the prompt serves both.
    """

    options: ClassVar = frozenset({"depths", "samples", "seed"})
    ability: ClassVar[Ability] = "literal"
    reads_ids: ClassVar[bool] = True
    digits: int = 5

    def __post_init__(self) -> None:
        at_least(self, 1, "digits")
        if self.digits >= ANSWER_ROOM:
            raise SpecError(f"{self.name()}: digits={self.digits} must be below {ANSWER_ROOM}")

    @abstractmethod
    def wording(self, rng: np.random.Generator, value: str) -> Wording:
        """The words around the number `value`."""

    @abstractmethod
    def filler(self, encoder: Encoder, haystack: Ids, count: int) -> Ids:
        """`count` ids of text without the fact; `haystack` is real text, at least as long where the task needs it."""

    def _drawn(self, rng: np.random.Generator) -> tuple[list[str], int, Wording]:
        """The candidates, which of them is right, and the words around that."""
        firsts, rests = rng.permutation(CANDIDATES), rng.integers(0, 10, size=(CANDIDATES, self.digits - 1))
        values = ["".join(map(str, (first, *rest))) for first, rest in zip(firsts, rests, strict=True)]
        right = int(rng.integers(CANDIDATES))
        return values, right, self.wording(rng, values[right])

    def ask(self, rng: np.random.Generator, depth: float) -> tuple[Ask, Wording]:
        """A question in plain text about a fact of its own, and the words of the fact."""
        values, right, wording = self._drawn(rng)
        asked = Ask(
            text=wording.asked, opening=wording.question.strip(), right=values[right], choices=tuple(values), most_tokens=ANSWER_ROOM + 4,
            depth=depth, evidence=(wording.fact,),
        )  # fmt: skip
        return asked, wording

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the first number that is written is the right one."""
        found = re.search(r"\d+", written)
        return float(found is not None and found[0] == ask.right)

    def frame(self, encoder: Encoder, seed: int, sample: int) -> Frame:
        """The prompt without its filler. Sample by sample it is the same at all lengths and depths."""
        values, right, wording = self._drawn(np.random.default_rng((seed, sample)))
        question, answers = _split_answers(encoder, wording.question, values)
        return Frame(
            head=encoder.encode(wording.head) if wording.head else [],
            fact=encoder.encode_inside(wording.fact),
            question=question,
            answers=answers,
            right=right,
        )

    def prompt(self, encoder: Encoder, *, length: int, depth: float, seed: int, sample: int, haystack: Ids) -> Prompt:
        """The prompt of a cell of `length` tokens: exactly `length - ANSWER_ROOM` ids, the encoder's prefix included.

        Only the filler is cut. Raises: InputError for a length that does not hold the rest.
        """
        frame = self.frame(encoder, seed, sample)
        room = length - len(encoder.prefix) - frame.shortest
        if room < 0:
            raise InputError(f"{self.name()}: {length} tokens do not hold its prompt, which needs {length - room} with this tokenizer")
        filler = self.filler(encoder, haystack, room)
        place = _place(encoder, filler, depth)
        parts = (encoder.prefix, frame.head, filler[:place], frame.fact, filler[place:], frame.question)
        ids = np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])
        return Prompt(ids=ids, answers=frame.answers, right=frame.right)

    def cases(self, plan: TaskPlan) -> list[RetrievalCase]:
        """Every length that is at least half filler, sample by sample at every depth.

        Raises: NoRoom where no length is.
        """
        samples = range(PROMPTS if plan.samples is None else plan.samples)
        lengths = self._lengths(plan, [self.frame(plan.encoder, plan.seed, sample) for sample in samples])
        return [
            replace(self._case(plan, length, depth, sample), share=(sample + 1) / len(samples))
            for length in lengths
            for sample in samples
            for depth in plan.depths
        ]

    def _lengths(self, plan: TaskPlan, frames: Sequence[Frame]) -> list[int]:
        shortest = max(frame.shortest for frame in frames) + len(plan.encoder.prefix)
        least = 2 * shortest - ANSWER_ROOM  # half of what comes before the answer
        lengths = [edge for edge in plan.edges if edge in plan.asked and edge >= least]
        if not lengths:
            raise NoRoom(f"{self.name()} needs a length of {least} tokens with this tokenizer; measure to a greater one")
        return lengths

    def reading(self, plan: TaskPlan, number: int) -> TextReading:
        """The window, and at every length a question about a fact of its own for each sample and depth.

        Raises: NoRoom where no length is at least half filler.
        """
        count, ids = (QUESTIONS if plan.samples is None else plan.samples) * len(plan.depths), plan.text(number)
        frames = [self.frame(plan.encoder, plan.seed, number * count + one) for one in range(count)]
        room = max(len(frame.question) for frame in frames) + ANSWER_ROOM
        questions = []
        for length in self._lengths(plan, frames):
            stop = length - room
            filler = ids[len(plan.encoder.prefix) : stop - max(len(frame.fact) for frame in frames)]
            places = [len(plan.encoder.prefix) + _place(plan.encoder, filler, depth) for depth in plan.depths]
            for one, frame in enumerate(frames):
                depth = one % len(plan.depths)
                # The text's first token stays where it is: models rest their attention on it.
                questions.append(self._question(plan, frame, max(1, places[depth]), stop, ids, length=length, depth=plan.depths[depth]))
        return TextReading(ids=ids, questions=tuple(questions))

    def _question(self, plan: TaskPlan, frame: Frame, place: int, stop: int, ids: Ids, **cell: Any) -> Question:
        extra = (frame.fact, frame.question, place, frame.answers, frame.right)
        likelihood, generation = (
            self.row(plan, ids[:stop], extra=extra, seed=plan.seed, settings={"metric": metric}, **cell) for metric in METRICS
        )
        return Question(
            place=place, stop=stop, fact=frame.fact, asked=frame.question, answers=frame.answers, right=frame.right,
            rows=(likelihood, generation),
        )  # fmt: skip

    def _case(self, plan: TaskPlan, length: int, depth: float, sample: int) -> RetrievalCase:
        haystack = plan.windows[sample % len(plan.windows)] if plan.windows else _NO_TEXT
        prompt = self.prompt(plan.encoder, length=length, depth=depth, seed=plan.seed, sample=sample, haystack=haystack)
        extra = (prompt.answers, prompt.right)
        rows = tuple(
            self.row(plan, prompt.ids, extra=extra, length=length, depth=depth, seed=plan.seed, settings={"metric": metric})
            for metric in METRICS
        )
        return RetrievalCase(ids=prompt.ids, rows=rows, written=len(prompt.answers[prompt.right]), prompt=prompt)

    def score(
        self, model: PreTrainedModel, cases: Sequence[RetrievalCase], *, chunk_size: int, progress: Progress = SILENT
    ) -> list[tuple[float, ...]]:
        """1 for a right answer, 0 for a wrong one: by likelihood, by generation."""
        cache = new_cache(model)
        logits = prefill(model, stack(model, cases), cache=cache, chunk_size=chunk_size, progress=progress)
        firsts = torch.tensor([[answer[0] for answer in case.prompt.answers] for case in cases], device=logits.device)
        candidates = logits.float().gather(1, firsts)
        if not torch.isfinite(candidates).all():
            raise LongreachError(
                f"the logits are not finite numbers at length {cases[0].rows[0].length}; load the model with another dtype (float32)"
            )
        written = [logits.argmax(-1)]  # each [B]
        while len(written) < max(case.written for case in cases):
            written.append(prefill(model, written[-1][:, None], cache=cache).argmax(-1))
        texts = torch.stack(written, dim=1).tolist()
        return [
            (float(chosen == case.prompt.right), float(text[: case.written] == case.prompt.answers[case.prompt.right]))
            for chosen, text, case in zip(candidates.argmax(-1).tolist(), texts, cases, strict=True)
        ]


_NO_TEXT: Ids = np.empty(0, dtype=np.int32)


def _split_answers(encoder: Encoder, question: str, values: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Ids of the question with all that the answers begin with in common, and the rest of each answer.

    Raises: InputError for a tokenizer that writes the question otherwise before an answer, or numbers without their first digit.
    """
    full = [encoder.encode_inside(f"{question} {value}") for value in values]
    shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, zip(*full, strict=False))]
    alone = encoder.encode_inside(question)
    answers = [ids[len(shared) :] for ids in full]
    if shared[: len(alone)] != alone or len({answer[0] for answer in answers if answer}) < len(values):
        raise InputError("the tokenizer cannot tell numbers apart by their first digits; retrieval cannot be measured with it")
    return shared, answers


def _place(encoder: Encoder, filler: Ids, depth: float) -> int:
    """The index in the filler nearest to `depth` of it where a line or sentence ends; exact at 0 and 1."""
    target = round(depth * len(filler))
    for distance in range(_SEARCHED) if 0 < target < len(filler) else ():
        for index in (target - distance, target + distance):
            if index == 0 or (0 < index < len(filler) and encoder.breaks(int(filler[index - 1]), int(filler[index]))):
                return index
    return target

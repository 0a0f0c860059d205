"""Best answer: of many texts, all alike in form, the one that belongs to a question is found.

Paper: Ada-LEval: Evaluating Long-Context LLMs with Length-Adaptable Benchmarks, 2024, arXiv:2404.06480
Cost: one pass over each passage for all its questions, and up to 12 written tokens for each.
Limits: what goes on from a quotation can partly be told by its words; text that repeats itself makes candidates that nobody can tell apart.
Differs from the paper: the paper asks questions of Stack Overflow, where the accepted answer is right. Without its data this asks which of
many pieces of any real text goes on from a quotation: those right before and after it in the text are among the candidates. `file` takes a
file of the paper's data (stackselect_*.json), one question to each passage, with as many of its other answers as there is room for.
Answers are numbered with four digits (A0007).
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from longreach.core.errors import InputError
from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.filler import divided
from longreach.evaluation.asking.items import spread, woven
from longreach.evaluation.asking.marks import first_said
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.text_task import Ability, TextTask

_QUOTED, _ANSWER = 240, 600  # characters
_CHOICES = 10
_WORD_END = re.compile(r"\s")
_HEAD = "Below are pieces of text, each of which begins with its number. A question will be asked of them.\n\n"


@dataclass(frozen=True, kw_only=True)
class BestAnswer(TextTask):
    """Args: questions: to each passage (>= 1; of a file, always 1). file: of the paper's data; None: made from the text that is given."""

    info: ClassVar = MethodInfo(title="Ada-LEval: Evaluating Long-Context LLMs with Length-Adaptable Benchmarks", paper="arXiv:2404.06480")
    ability: ClassVar[Ability] = "latent"
    questions: int = 4
    file: str | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "questions")

    def passage(self, space: Space) -> Passage:
        """As many candidates as there is room for."""
        return self._of_file(space, self.file) if self.file else self._of_text(space)

    def _of_text(self, space: Space) -> Passage:
        rng, text = space.rng(), space.filler.text
        piece = cache(partial(_piece, text))
        pieces = len(text) // (_QUOTED + _ANSWER)
        order = rng.permutation(pieces).tolist()
        asked = self._asked(text, piece, order)
        near = [place + step for place in asked for step in (-1, 1)]
        depths = spread(len(asked) + len(near), rng)
        wanted = list(zip(depths, [*asked, *near], strict=True))
        taken = {*asked, *near}
        others = [place for place in order if place not in taken]
        quotes = [f"Here is the end of a piece of text:\n\n{piece(place)[0]}\n\nWhich one goes on from there?" for place in asked]

        def shown(count: int) -> list[int]:
            return woven(others[:count], wanted)

        def whole(count: int, rest: int) -> str:
            listed = [piece(place)[1] for place in shown(count)]
            last = [piece(place)[1][:rest] for place in others[count : count + 1]] if rest else []
            return _shown([*listed, *last])

        asks = tuple(_ask(quote, 0, 1, rng) for quote in quotes)
        count, rest = space.topped(whole, asks, least=0, most=_ANSWER)
        if count > len(others):
            raise InputError(f"the text is too short: it has {pieces} pieces, and {self.name()} needs more; give more text (--text)")
        places = shown(count)
        return Passage(
            text=whole(count, rest),
            asks=tuple(
                _ask(quote, places.index(place), len(places), rng, depth=depth, text=piece(place)[1])
                for quote, place, depth in zip(quotes, asked, depths, strict=False)
            ),
        )

    def _asked(self, text: str, piece: Callable[[int], tuple[str, str]], order: Sequence[int]) -> list[int]:
        """Pieces far from each other, neither the first nor the last, whose text stands nowhere else."""
        found: list[int] = []
        for place in order:
            alone = 0 < place < len(order) - 1 and all(abs(place - other) > 2 for other in found)
            if alone and all(text.count(part) == 1 for part in piece(place)):
                found.append(place)
                if len(found) == self.questions:
                    return found
        raise InputError(f"the text is too short for {self.questions} questions of {self.name()}; give more text (--text)")

    def _of_file(self, space: Space, file: str) -> Passage:
        rng, items = space.rng(), _read(file)
        item = items[space.number % len(items)]
        answers, accepted = item["all_answers"], int(item["answer"][1:]) - 1
        others = [place for place in range(len(answers)) if place != accepted]
        question = f"{item['question'].strip()}\n\nWhich of the pieces above is the most helpful answer to this question?"

        def kept(count: int) -> list[int]:
            return sorted([accepted, *others[:count]])

        def whole(count: int) -> str:
            return _shown([answers[place] for place in kept(count)])

        asks = (_ask(question, 0, 1, rng),)
        places = kept(space.listed(whole, asks, least=1))
        right = places.index(accepted)
        text = answers[accepted].strip()
        return Passage(text=_shown([answers[place] for place in places]), asks=(_ask(question, right, len(places), rng, text=text),))

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the one number that is written first is the right one."""
        found = {int(one.lstrip("a")[:9]) for one in first_said(r"a\d+|-?\d+", written)}
        return float(found == {int(ask.right[1:])})

    def chance(self, ask: Ask) -> float:
        """One of all candidates."""
        return 1 / int(ask.about["candidates"])

    def guess(self, ask: Ask, rng: np.random.Generator) -> str:
        """Any of all candidates."""
        return _label(int(rng.integers(ask.about["candidates"])))


def _ask(question: str, right: int, count: int, rng: np.random.Generator, *, text: str = "", depth: float | None = None) -> Ask:
    """The question whose answer is the candidate at the index `right`, of `count`."""
    others = [place for place in rng.permutation(count).tolist() if place != right][: _CHOICES - 1]
    choices = tuple(_label(place) for place in sorted([right, *others]))
    return Ask(
        text=f"{question} Give its number.", opening="It is", right=_label(right), choices=choices,
        most_tokens=12, depth=depth, evidence=(text,) if text else (), about={"candidates": count},
    )  # fmt: skip


def _piece(text: str, place: int) -> tuple[str, str]:
    """A quotation, and what goes on from there, in the piece of that number."""
    start, end = (_WORD_END.search(text, one * (_QUOTED + _ANSWER)) for one in (place, place + 1))
    quoted, answer = divided(text[start.end() if start else 0 : end.end() if end else None], (_QUOTED, _ANSWER))
    return quoted.strip(), answer.strip()


def _shown(answers: Sequence[str]) -> str:
    return _HEAD + "\n\n".join(f"{_label(place)}:\n{answer.strip()}" for place, answer in enumerate(answers))


def _label(place: int) -> str:
    return f"A{place + 1:04}"


@lru_cache(maxsize=2)
def _read(file: str) -> list[dict[str, Any]]:
    """The questions of a file of the paper's. Raises: InputError for another one."""
    try:
        items = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}); best_answer takes a file of Ada-LEval, stackselect_*.json") from error
    if not isinstance(items, list) or not items or not all(_is_question(item) for item in items):
        raise InputError(
            f"{file} is no list of questions with all_answers and answer; best_answer takes a file of Ada-LEval, stackselect_*.json"
        )
    return items


def _is_question(item: Any) -> bool:
    if not isinstance(item, dict) or not {"question", "all_answers", "answer"} <= item.keys():
        return False
    number = str(item["answer"]).removeprefix("A")
    return number.isdecimal() and 1 <= int(number) <= len(item["all_answers"]) and len(item["all_answers"]) > 1


METHOD = BestAnswer
EXAMPLES = (BestAnswer(),)
BAD = ({"questions": 0},)

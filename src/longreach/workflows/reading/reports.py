"""Reports: locate the passages with the numbers, note the numbers, write the calculation as a formula, and compute it.

Paper: Numerical Reasoning for Financial Reports, 2023, arXiv:2312.14870
Cost: two to four calls; the report is searched by words, not read by the model.
Limits: one formula of FinQA's functions (add, subtract, multiply, divide, exp, greater) per task; other tasks are answered from the notes.
Differs from the paper: any chat model, not one fine-tuned on FinQA; the formula is computed exactly instead of by the model.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from longreach.core.method import MethodInfo, at_least
from longreach.workflows.base import ReadingWorkflow
from longreach.workflows.cutting import TextChunk, cut, fitting
from longreach.workflows.desk import Desk, Note
from longreach.workflows.lexical import LexicalIndex
from longreach.workflows.reading._formula import FUNCTIONS, FormulaError, computed
from longreach.workflows.reading._notes import answer_from, task_part
from longreach.workflows.wording import FORMULA, NOTES, NOTHING

_LOCATE = (
    "Below are passages of a report. Write down what the task needs from them, in their words, each number on a line of its own with what "
    f"it is, its year and its unit. Calculate nothing. If they hold nothing that helps, write only {NOTHING}."
)
_REASON = (
    f"Below are notes on a report. Write the calculation that the task asks for as one formula of {', '.join(FUNCTIONS)}, with two numbers "
    "each and no commas inside numbers, as divide(subtract(120, 100), 100). If the task asks for no calculation, write only "
    f"{NOTHING}."
)
_WRONG = "This formula cannot be computed ({why}): {formula}"
_FORMULA_TOKENS = 64
_COMPLAINT_TOKENS = 24


@dataclass(frozen=True, kw_only=True)
class Reports(ReadingWorkflow):
    """Args: passage_tokens: of a passage (default: an eighth of the window). note_tokens: of the notes (default: a quarter of
    the window).
    """

    info: ClassVar[MethodInfo] = MethodInfo(title="Numerical Reasoning for Financial Reports", paper="arXiv:2312.14870")
    passage_tokens: int | None = None
    note_tokens: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "passage_tokens", "note_tokens")

    def read(self, desk: Desk) -> Note:
        """The value of the formula and the formula, or an answer in words where the task asks for no calculation."""
        most = self.note_tokens or desk.note_tokens
        passages = _located(desk, self.passage_tokens or max(8, desk.window // 8), most)
        notes = desk.ask(_LOCATE, *passages, task_part(desk), NOTES, most=most, role="notes", again=True)
        if notes.empty:
            return answer_from(desk, [])
        note_tokens, most = most, min(_FORMULA_TOKENS, desk.window // 8)
        said = desk.ask(_REASON, notes, task_part(desk), FORMULA, most=most, role="formula", any_size=True)
        asks_again = desk.room(_REASON, _WRONG, task_part(desk), FORMULA, most=most) >= note_tokens + most + _COMPLAINT_TOKENS
        if asks_again and not said.empty and _value(said.text) is None:
            why = _WRONG.format(why=_complaint(said.text), formula=said.text)
            said = desk.ask(_REASON, notes, why, task_part(desk), FORMULA, most=most, role="formula", any_size=True)
        if said.empty or (value := _value(said.text)) is None:
            return answer_from(desk, [notes])
        return Note(text=f"{value} = {_first_line(said.text)}", spans=said.spans)


def _located(desk: Desk, passage_tokens: int, most: int) -> list[TextChunk]:
    """The passages that match the task best, in the order of the report; of equals those with numbers first."""
    room = desk.room(_LOCATE, task_part(desk), NOTES, most=most)
    passages = cut(desk.documents, min(passage_tokens, room), desk.count)
    scores = LexicalIndex([passage.text for passage in passages]).scores(desk.task)
    best = sorted(passages, key=lambda passage: (-scores[passage.number], not re.search(r"\d", passage.text), passage.number))
    return sorted(fitting(best, room), key=lambda passage: passage.number)


def _value(text: str) -> str | None:
    """The value of a formula, as it is written; None where it has none."""
    try:
        value = computed(_first_line(text))
    except FormulaError:
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value.quantize(Decimal(1)) if value == value.to_integral_value() else round(value, 6).normalize():f}"


def _complaint(text: str) -> str:
    try:
        computed(_first_line(text))
    except FormulaError as error:
        return str(error)
    return ""


def _first_line(text: str) -> str:
    return next((line.strip(" `") for line in text.splitlines() if line.strip(" `")), "")


METHOD = Reports
EXAMPLES = (Reports(), Reports(passage_tokens=40, note_tokens=32))
BAD = ({"passage_tokens": 0}, {"note_tokens": 0})

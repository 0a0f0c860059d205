"""InfiniteBench: twelve tasks on texts of 100,000 tokens and more, from books, scripts, code, and made-up lists.

Paper: InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens, 2024, arXiv:2402.13718
Cost: one reading of each text (40k to 2M tokens), and up to 30,000 written tokens for intermediate results.
Limits: rules are the authors', also odd ones: a speaker's name counts only where it is one word, and signs before numbers are not seen.
Differs from the paper: one wording of each prompt for all models, and it tells in which form to answer.
"""

import re
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from longreach.core.errors import InputError
from longreach.core.method import MethodInfo
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.records import Datum, Records
from longreach.evaluation.asking.space import Space
from longreach.evaluation.tasks.benchmarks import _infinitebench_rules as rules
from longreach.evaluation.tasks.benchmarks._infinitebench_sample import SAMPLE
from longreach.evaluation.text_task import Ability, TextTask

_LETTERS = "ABCD"


class _Form(NamedTuple):
    """How a part is asked. Args: head: before its text. tell: after it. most: tokens of an answer. metric: of its marks."""

    head: str
    tell: str
    most: int
    metric: str = "accuracy"


_HIDDEN = "Important information is hidden in a lot of text that does not matter. Find it and remember it: it will be asked for."
_BOOK = "This is a book. A question about it follows."
_FORMS = {
    "passkey": _Form(_HIDDEN, "Write only the number.", 16),
    "number_string": _Form(_HIDDEN, "Write only the digits.", 24),
    "kv_retrieval": _Form("Find the value of a key in this JSON object.", "Write only the value of this key.", 64),
    "longbook_choice_eng": _Form(_BOOK, "One option is right. Write only its letter.", 40),
    "longbook_qa_eng": _Form(_BOOK, "Answer in as few words as you can.", 40, "f1"),
    "longbook_sum_eng": _Form("This is a book.", "Summarize the book.", 1200, "rouge_l_sum"),
    "longbook_qa_chn": _Form("请阅读这本书,然后回答问题。", "请尽量简短地回答。", 40, "f1"),
    "longdialogue_qa_eng": _Form(
        "This is a script. In one place the name of a character is replaced by $$MASK$$.",
        "Which character is $$MASK$$? Write only the name, as it stands before what the character says.", 40,
    ),
    "math_find": _Form("This is a list of numbers.", "Write only the number.", 16),
    "math_calc": _Form(
        "This is a long expression.",
        "Write the intermediate result after each operation as a list: for 8 - 3 + 2 - 4 it is [5, 7, 3]. Write nothing else.", 30_000,
        "share_before_error",
    ),
    "code_run": _Form("These are Python functions.", "Work out the value, and write it as the last word of your answer.", 256),
    "code_debug": _Form(
        "This is the code of a project. One of its functions was given an obvious error on purpose.",
        "In which of these functions is the error? Answer with the letter, a point, and the name.", 64,
    ),
}  # fmt: skip
_CALL = re.compile(r"func_\d+\(-?\d+\)")
_WANTED = re.compile(r"The (.+?) of the list")


@dataclass(frozen=True, kw_only=True)
class InfiniteBench(TextTask):
    """Args: file: one of InfiniteBench's files (`code_run.jsonl` and so on), or a folder with some (default: short texts of our own)."""

    info: ClassVar = MethodInfo(title="InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens", paper="arXiv:2402.13718")
    ability: ClassVar[Ability] = "latent"
    needs_text: ClassVar[bool] = False
    free: ClassVar[bool] = True
    file: Records | None = None

    @property
    def sized(self) -> bool:
        """Texts have lengths of their own."""
        return False

    def available(self) -> int:
        """Texts."""
        return len(self._records())

    def passage(self, space: Space) -> Passage:
        """A text and its question. Raises: InputError for what is not in InfiniteBench's format."""
        records = self._records()
        record = records[space.drawn(len(records))]
        ask = ask_of(record)
        head = _FORMS[record.source].head
        context = str(record.values.get("context", record.values.get("content")))
        text, cut = space.fitted(context, (ask,), lambda context: f"{head}\n\n{context}")
        return Passage(text=text, asks=(ask,), cut=cut)

    def metrics(self, ask: Ask) -> tuple[str, ...]:
        """That of the question's part, with its name before it."""
        return (f"{ask.about['part']}/{_FORMS[ask.about['part']].metric}",)

    def mark(self, ask: Ask, written: str) -> float:
        """By the rule of its part."""
        return rules.mark(ask.about["part"], written, ask.expected)

    def _records(self) -> tuple[Datum, ...]:
        return SAMPLE if self.file is None else self.file.all()


def ask_of(record: Datum) -> Ask:
    """The question about a text. Raises: InputError where it is not in InfiniteBench's format."""
    part, values = record.source, record.values
    if part not in _FORMS:
        raise InputError(f"{record.place}: no part of InfiniteBench is called {part}; a file is called as its part: {', '.join(_FORMS)}")
    form, asked = _FORMS[part], str(values.get("input", "")).strip()
    try:
        answer = rules.answer_of(part, values)
    except (KeyError, IndexError, TypeError, ValueError):
        raise InputError(
            f"{record.place} is no text of InfiniteBench: it needs context, input and answer, and the options that it has"
        ) from None
    options = "\n".join(f"{letter}. {option}" for letter, option in zip(_LETTERS, values.get("options") or (), strict=False))
    if part == "code_run" and (call := _CALL.search(asked)):
        asked = f"What does {call[0]} return?"
    elif part == "math_find" and (wanted := _WANTED.search(asked)):
        asked = f"What is the {wanted[1]} of the list?"
    elif part == "math_calc":
        asked = ""
    words = (form.tell, options) if part == "code_debug" else (asked, options, form.tell)
    right, most = _right(part, answer), form.most
    if part == "math_calc":
        most = min(most, 4 * len(answer) + 16)
    return Ask(
        text="\n".join(filter(None, words)), right=right, most_tokens=most,
        choices=tuple(_LETTERS) if part == "longbook_choice_eng" else (),
        until=() if part in ("longbook_sum_eng", "code_run", "math_calc") else ("\n",), about={"part": part}, expected=answer,
        free=part in ("longbook_qa_eng", "longbook_qa_chn", "longbook_sum_eng"),
    )  # fmt: skip


def _right(part: str, answer: Any) -> str:
    if part == "code_debug":
        return f"{answer[1]}. {answer[0]}"
    if part == "longbook_choice_eng":
        return str(answer[1])
    if isinstance(answer, float):
        return f"{answer:g}"
    return str(answer if part == "math_calc" or isinstance(answer, str) else answer[0])


METHOD = InfiniteBench
EXAMPLES = (InfiniteBench(),)
BAD = ({"file": "nowhere.jsonl"},)

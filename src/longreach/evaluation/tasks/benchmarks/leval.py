"""L-Eval: long documents with several questions each, closed ones and such as are answered in free words.

Paper: L-Eval: Instituting Standardized Evaluation for Long Context Language Models, 2023, arXiv:2307.11088
Cost: one reading of each document (3k to 200k tokens), and up to 512 written tokens for each question.
Limits: rules are the authors', also odd ones: where options are asked for and none is named, A is taken for the answer, and of True and
False the one that is said first.
Differs from the paper: prompts are worded anew; answers are graded against the reference (--judge), not in pairs against another model's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from longreach.core.errors import InputError
from longreach.core.method import MethodInfo
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.records import Datum, Records
from longreach.evaluation.asking.space import Space
from longreach.evaluation.scoring.words import word_f1
from longreach.evaluation.tasks.benchmarks import _leval_rules as rules
from longreach.evaluation.tasks.benchmarks._leval_sample import SAMPLE
from longreach.evaluation.text_task import Ability, TextTask

Evaluated = Literal["auto", "judged", "all"]

_BY = {"exam": "auto", "f1": "auto", "rouge": "auto", "LLM": "judged", "human": "judged"}
_FREELY, _SHORTLY = 512, 64  # tokens of an answer; the first is the paper's
_HEADS = {
    "gsm": 'Here are problems with their solutions. Solve the last one in the same way, and end with "The answer is" and the number.',
    "topic": 'This is a record of our conversation. Each topic begins where the USER says "I would like to discuss the topic of".',
    "codeU": "These are functions with comments. Read both with care: in the end some of the functions are called.",
    "sci_fi": "This is a story. Questions about it are answered by True or False.",
}
_HEAD = "This is a long document. What is asked of you stands at its end."
_TELL = {
    "coursera": "One or more of the options are right. Write only their letters, as B or BD.",
    "quality": "One option is right. Write only its letter.",
    "tpo": "One option is right. Write only its letter.",
    "sci_fi": "Write only True or False.",
    "topic": "Write only the name of the topic.",
}
_LETTER = re.compile(r"(?m)^\s*\(?([A-D])[.)]")
_IN_STORY, _IN_WORLD = "based on the world described in the document.", "based on what you know of the real world."


@dataclass(frozen=True, kw_only=True)
class LEval(TextTask):
    """Args: file: one of L-Eval's files, or a folder with some (default: a few short documents of our own). evaluated: documents whose
    answers are marked by themselves, those that the authors gave to a judge, which ROUGE and `--judge` mark here, or all of them.
    """

    info: ClassVar = MethodInfo(
        title="L-Eval: Instituting Standardized Evaluation for Long Context Language Models", paper="arXiv:2307.11088"
    )
    ability: ClassVar[Ability] = "latent"
    needs_text: ClassVar[bool] = False
    free: ClassVar[bool] = True
    file: Records | None = None
    evaluated: Evaluated = "auto"

    @property
    def sized(self) -> bool:
        """Texts have lengths of their own."""
        return False

    def available(self) -> int:
        """Documents. Raises: InputError where there is none."""
        return len(self._documents())

    def passage(self, space: Space) -> Passage:
        """A document and all its questions. Raises: InputError for what is not in L-Eval's format."""
        documents = self._documents()
        record = documents[space.drawn(len(documents))]
        asks, head = asks_of(record), _named(_HEADS, record.source) or _HEAD
        text, cut = space.fitted(str(record.values["input"]), asks, lambda document: f"{head}\n\n{document}")
        return Passage(text=text, asks=asks, cut=cut)

    def metrics(self, ask: Ask) -> tuple[str, ...]:
        """Those of the question's dataset, with its name before them."""
        names = {"exam": ("exact_match",), "f1": ("f1",)}.get(ask.about["evaluation"], rules.ROUGE)
        return tuple(f"{ask.about['dataset']}/{name}" for name in names)

    def marks(self, ask: Ask, written: str) -> tuple[float, ...]:
        """Right or not (a quarter for some of several right options), F1, or ROUGE-L, 1 and 2."""
        return score(ask.about["dataset"], ask.about["evaluation"], written.strip(), ask.expected)

    def mark(self, ask: Ask, written: str) -> float:
        """The first of them."""
        return self.marks(ask, written)[0]

    def _documents(self) -> tuple[Datum, ...]:
        records = SAMPLE if self.file is None else self.file.all()
        found = tuple(one for one in records if self.evaluated in ("all", _BY.get(str(one.values.get("evaluation")))))
        if not found:
            raise InputError(f"{self.spec}: {self.file or 'the sample'} has no such documents; choose evaluated=auto, judged or all")
        return found


def score(dataset: str, evaluation: str, written: str, right: str) -> tuple[float, ...]:
    """The marks of an answer, from 0 to 1. Args: evaluation: of the document, as the file says. right: as the file has it."""
    if evaluation == "exam":
        return (rules.closed(dataset, written, right),)
    return (word_f1(written, right),) if evaluation == "f1" else rules.rouge(written, right)


def asks_of(record: Datum) -> tuple[Ask, ...]:
    """The questions of a document. Raises: InputError where it is not in L-Eval's format."""
    values = record.values
    asked, right = values.get("instructions"), values.get("outputs")
    if not (isinstance(values.get("input"), str) and isinstance(asked, list) and isinstance(right, list) and len(asked) == len(right)):
        raise InputError(f"{record.place} is no document of L-Eval: an input, and as many instructions as outputs")
    if str(values.get("evaluation")) not in _BY:
        raise InputError(f"{record.place}: evaluation is {values.get('evaluation')!r}, and has to be {', '.join(_BY)}")
    pairs = zip(map(str, asked), map(str, right), strict=True)
    return tuple(ask for question, answer in pairs for ask in _asks(record.source, str(values["evaluation"]), question, answer))


def _asks(dataset: str, evaluation: str, question: str, right: str) -> list[Ask]:
    about = {"dataset": dataset, "evaluation": evaluation}
    if evaluation != "exam":
        length = f"Write about {len(right.split())} words."
        return [Ask(text=f"{question}\n{length}", right=right, most_tokens=_FREELY, until=(), about=about, expected=right, free=True)]
    if dataset.startswith(("gsm", "codeU")):
        return [Ask(text=question, right=right, most_tokens=_FREELY, until=("\nQuestion:",), about=about, expected=right)]
    text = f"{question}\n{_named(_TELL, dataset) or 'Write only the answer.'}"
    if dataset.startswith("sci_fi"):
        pairs = zip(("loyal", "factual"), (text, text.replace(_IN_STORY, _IN_WORLD)), rules.loyal_and_factual(right), strict=True)
        return [
            Ask(
                text=words, right=truth, choices=("True", "False") if truth in ("True", "False") else (), most_tokens=_SHORTLY,
                about={**about, "dataset": f"{dataset}/{kind}"}, expected=truth,
            )
            for kind, words, truth in pairs
        ]  # fmt: skip
    letters = tuple(dict.fromkeys(_LETTER.findall(question)))
    said = rules.right_options(right) if dataset in rules.OPTIONS else right
    choices = letters if dataset in rules.ONE_OPTION and said in letters and len(letters) > 1 else ()
    return [Ask(text=text, right=said, choices=choices, most_tokens=_SHORTLY, about=about, expected=right)]


def _named(words: Mapping[str, str], dataset: str) -> str:
    return next((text for name, text in words.items() if dataset.startswith(name)), "")


METHOD = LEval
EXAMPLES = (LEval(), LEval(evaluated="judged"))
BAD = ({"file": "nowhere.jsonl"}, {"evaluated": "some"})

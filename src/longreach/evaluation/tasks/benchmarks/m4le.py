"""M4LE: short texts put together to a long one, and a question about one of them, several, or all.

Paper: M4LE: A Multi-Ability Multi-Range Multi-Task Multi-Domain Long-Context Evaluation Benchmark, 2023, arXiv:2310.19240
Cost: one pass over each passage and up to 64 written tokens.
Limits: a file needs as many short texts as a passage of the length holds; none stands in it twice.
Differs from the paper: any short labelled texts, or texts with questions, that are given as a file; without one, paragraphs of real text,
of which only is asked what can be known without labels: how one begins, which one goes on after another, which ones have a word, and which
paragraph is of the same text. No example is shown first; summaries and translations are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from longreach.core.errors import InputError
from longreach.core.method import MethodInfo
from longreach.evaluation.asking.items import spread, woven
from longreach.evaluation.asking.marks import all_said, any_of, is_only, overlap
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.records import Records
from longreach.evaluation.asking.space import DEPTHS, Space
from longreach.evaluation.scoring.words import normalized
from longreach.evaluation.tasks.benchmarks._m4le_pools import Paragraphs, Pool, paragraphs
from longreach.evaluation.text_task import Ability, TextTask

Span = Literal["explicit_single", "semantic_single", "explicit_multiple", "semantic_multiple", "global"]

_HEAD = "These are several texts. Each begins with its name.\n\n"
_NAME = "[0-9a-f]{6}"
_LETTERS = "ABCD"
_FIRST = 8  # words that are asked for
_NEAR = 12  # paragraphs before a passage, one of which is known by it
_SEVERAL, _COUNTS = 3, range(2, 6)  # texts of a category that are asked for, and that are counted


class _Posed(NamedTuple):
    """A question and the texts that it is about. Args: wanted: those with their depths. others: in the order in which they are taken."""

    ask: Ask
    wanted: Sequence[tuple[float, str]]
    others: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class M4LE(TextTask):
    """Args: span: where the answer is: in one text or several, which are named (explicit) or have to be recognised (semantic), or in all of
    them. file: JSON Lines of `text` and `label`, or of `context`, `question` and `answer` (default: real text).
    """

    info: ClassVar = MethodInfo(
        title="M4LE: A Multi-Ability Multi-Range Multi-Task Multi-Domain Long-Context Evaluation Benchmark for Large Language Models",
        paper="arXiv:2310.19240",
    )
    ability: ClassVar[Ability] = "latent"
    span: Span = "semantic_single"
    file: Records | None = None

    def passage(self, space: Space) -> Passage:
        """Named texts, as many as there is room for. Raises: InputError for too few of them, or such as the question cannot be made of."""
        rng = space.rng()
        names = _TextNames(space.rng("names"))
        if self.file is None:
            plan = _of_text(self.span, paragraphs(space.filler.text), space, rng, names)
        else:
            plan = _of_file(self.span, Pool(self.file.all()), space, rng, names)
        named = [f"{names.next()}: {text}" for text in plan.others]

        def text(count: int, rest: int) -> str:
            if count + 1 > len(named):
                raise InputError(f"{self.spec}: too few texts for {space.length} {space.units.name}; give more, or choose a shorter length")
            cut = [" ".join(named[count].split(" ")[: rest + 1])] if rest else []
            return _HEAD + "\n\n".join([*woven(named[:count], plan.wanted), *cut])

        return Passage(text=text(*space.topped(text, (plan.ask,), least=3, most=400)), asks=(plan.ask,))

    def mark(self, ask: Ask, written: str) -> float:
        """Names of texts: F1. Labels, letters and numbers: right or not. Words: whether the right ones are written."""
        kind, right = ask.expected["kind"], ask.expected["right"]
        if kind == "names":
            return overlap(all_said(_NAME, written), right)
        if kind == "one_of":
            return is_only(all_said(any_of(ask.expected["of"]), written), right)
        if kind == "beginning":
            return float(normalized(written) == normalized(right))
        said = written.lower()
        return float(any(answer.lower() in said for answer in right) and not all(word in said for word in ask.text.lower().split()))

    def chance(self, ask: Ask) -> float:
        """Of those that the question names, or, of counts, of those that there may be."""
        return 1 / len(ask.expected["of"]) if ask.expected["kind"] == "one_of" else 0.0

    def guess(self, ask: Ask, rng: np.random.Generator) -> str:
        """One of them."""
        return str(rng.choice(ask.expected["of"])) if ask.expected["kind"] == "one_of" else ""


class _TextNames:
    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._given = rng, set[str]()

    def next(self) -> str:
        """Six digits, of which the first is a letter and the last a number."""
        while (name := f"{self._rng.integers(10, 16):x}{self._rng.integers(16**4):04x}{self._rng.integers(10)}") in self._given:
            pass
        self._given.add(name)
        return name


def _of_text(span: Span, found: Paragraphs, space: Space, rng: np.random.Generator, names: _TextNames) -> _Posed:
    """A question about paragraphs of real text."""
    texts, depths = found.texts, [DEPTHS[space.number % len(DEPTHS)], *spread(8, rng)]
    if span == "global":
        return _same_text(texts, rng)
    if span == "explicit_multiple":
        word = str(rng.choice(sorted(found.rare)))
        chosen, hidden = list(found.rare[word]), set(found.rare[word])
        text, most = f'Which of the texts have the word "{word}" in them? Write their names.', 64
    else:
        count = 2 if span == "semantic_multiple" else 1
        before = (rng.choice(len(texts) // 2 - 1, count, replace=False) * 2).tolist()  # no two of them neighbours
        chosen = [place + 1 for place in before]
        hidden = {*chosen, *before}
        shown = "\n\n".join(texts[place] for place in before)
        text, most = f"Which of the texts goes on right after this one? Write its name.\n\n{shown}", 16
        if count > 1:
            text, most = f"Which of the texts go on right after these two? Write their names.\n\n{shown}", 32
    wanted = [(depth, names.next(), texts[place]) for depth, place in zip(depths, chosen, strict=False)]
    expected: dict[str, Any] = {"kind": "names", "right": [name for _, name, _ in wanted]}
    right = ", ".join(expected["right"])
    if span == "explicit_single":
        right = " ".join(wanted[0][2].split(" ")[:_FIRST])
        text, most, expected = (
            f"What are the first {_FIRST} words of the text {wanted[0][1]}? Copy them.",
            64,
            {"kind": "beginning", "right": right},
        )
    order = [place for place in rng.permutation(len(texts)).tolist() if place not in hidden]
    return _plan(text, right, most, expected, wanted, [texts[place] for place in order])


def _same_text(texts: Sequence[str], rng: np.random.Generator) -> _Posed:
    """Paragraphs in their order, and which of four paragraphs stands a little before them."""
    half = len(texts) // 2
    start = int(rng.integers(_NEAR, half))
    near = start - 1 - int(rng.integers(_NEAR))
    options = [texts[place] for place in rng.choice(np.arange(half, len(texts)) if start < half else np.arange(half), 3, replace=False)]
    options.insert(right := int(rng.integers(len(_LETTERS))), texts[near])
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=True))
    expected = {"kind": "one_of", "of": list(_LETTERS), "right": _LETTERS[right]}
    text = f"Which of these paragraphs is of the same source as the texts? Write its letter.\n{listed}"
    return _plan(text, _LETTERS[right], 16, expected, (), texts[start : start + half], choices=tuple(_LETTERS))


def _of_file(span: Span, found: Pool, space: Space, rng: np.random.Generator, names: _TextNames) -> _Posed:
    """A question about labelled texts, or one that a text comes with."""
    order = [found.texts[place] for place in rng.permutation(len(found.texts)).tolist()]
    depths = [DEPTHS[space.number % len(DEPTHS)], *spread(8, rng)]
    about = {"data": found.digest}
    if found.asks:
        if span not in ("explicit_single", "semantic_single"):
            raise InputError(f"m4le: span={span} needs texts with labels, and those of the file have questions")
        one = next(text for text in order if text.question)
        wanted = [(depths[0], names.next(), one.text)]
        text = f"{f'Use the text {wanted[0][1]}. ' if span == 'explicit_single' else ''}{one.question} Answer in a few words."
        others = [each.text for each in order if each.text != one.text]
        return _plan(text, one.answers[0], 64, {"kind": "words", "right": one.answers}, wanted, others, about=about)
    count = {"explicit_multiple": _SEVERAL, "semantic_multiple": int(rng.choice(_COUNTS))}.get(span, 1)
    labels = [label for label in found.labels if found.sizes[label] >= count]
    if not labels:
        raise InputError(f"m4le: span={span} needs {count} texts of one category, and the file has fewer of each; give more")
    label = str(rng.choice(labels))
    of = [text for text in order if text.label == label]
    listed = f"The categories are {', '.join(found.labels)}."
    one_of = {"kind": "one_of", "of": list(found.labels), "right": label}
    if span == "global":
        text = f"All texts belong to one category. Which is it? Write its name. {listed}"
        return _plan(text, label, 32, one_of, (), [each.text for each in of], choices=found.labels, about=about)
    wanted = [(depth, names.next(), each.text) for depth, each in zip(depths, of[:count], strict=False)]
    others = [each.text for each in order if each.label != label]
    if span == "explicit_single":
        text = f"To which category does the text {wanted[0][1]} belong? Write its name. {listed}"
        return _plan(text, label, 32, one_of, wanted, [each.text for each in order if each != of[0]], choices=found.labels, about=about)
    if span == "semantic_multiple":
        text = f"How many of the texts belong to the category {label}? Write only the number. {listed}"
        counts = {"kind": "one_of", "of": [str(number) for number in _COUNTS], "right": str(count)}
        return _plan(text, str(count), 16, counts, wanted, others, about=about)
    text = f"Which of the texts belong to the category {label}? Write the names of all of them. {listed}"
    if span == "semantic_single":
        text = f"Which of the texts belongs to the category {label}? Write its name. {listed}"
    right = [name for _, name, _ in wanted]
    return _plan(text, ", ".join(right), 16 + 16 * count, {"kind": "names", "right": right}, wanted, others, about=about)


def _plan(
    text: str, right: str, most: int, expected: dict[str, Any], wanted: Sequence[tuple[float, str, str]], others: Sequence[str], **more: Any
) -> _Posed:
    pieces = [(depth, f"{name}: {words}") for depth, name, words in wanted]
    ask = Ask(text=text, right=right, most_tokens=most, expected=expected, evidence=tuple(piece for _, piece in pieces), **more)
    return _Posed(ask, pieces, others)


METHOD = M4LE
EXAMPLES = (
    M4LE(), M4LE(span="explicit_single"), M4LE(span="explicit_multiple"), M4LE(span="semantic_multiple"), M4LE(span="global"),
)  # fmt: skip
BAD = ({"span": "far"}, {"file": "nowhere.jsonl"})

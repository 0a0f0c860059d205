"""Classification by length: headlines, paragraphs or whole documents under the same labels, learnt from examples in the prompt.

Paper: L3Cube-IndicNews: News-based Short Text and Long Document Classification Datasets in Indic Languages, 2024, arXiv:2401.02254
Cost: one pass over each passage for all its questions, and up to 12 written tokens for each.
Limits: the made texts have few sentences, and topics that are far apart; a corpus of one's own says more, but its labels may be guessed
from what they mean.
Differs from the paper: the protocol alone is kept, the same labels and documents for each length of text, with the user's corpus or made
English texts in place of news in Indic languages, and with examples in the prompt in place of training: as many as the length has room for.
Labels of made texts are names that mean nothing (`kappa`), given to topics anew in each passage, so that examples have to be read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import ClassVar

import numpy as np

from longreach.core.errors import InputError, SpecError
from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.items import Drawn
from longreach.evaluation.asking.marks import choice_said
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.tasks.documents._corpus import LabelledText, Part, corpus, made
from longreach.evaluation.text_task import Ability, TextTask

_HEAD = "Each of the following texts is followed by its label, which says what sort of text it is.\n\n"
_LABELS = ("alpha", "beta", "gamma", "delta", "zeta", "kappa", "sigma", "omega")
_CUT = 400  # words of a last example, at most, that is cut to fill the length


@dataclass(frozen=True, kw_only=True)
class LengthSplitClassification(TextTask):
    """Args: part: what is classified: the `headline` (first line), the middle `paragraph`, or the whole `document`. file: JSON Lines with
    `text` and `label`, or a folder with a folder of .txt files for each label (default: made texts on eight topics). questions: texts
    to classify after each list of examples (>= 1).
    """

    info: ClassVar = MethodInfo(
        title="L3Cube-IndicNews: News-based Short Text and Long Document Classification Datasets in Indic Languages",
        paper="arXiv:2401.02254",
    )
    ability: ClassVar[Ability] = "aggregation"
    needs_text: ClassVar[bool] = False
    part: Part = "paragraph"
    file: Path | None = None
    questions: int = 5

    def __post_init__(self) -> None:
        at_least(self, 1, "questions")
        if self.file is not None and not self.file.exists():
            raise SpecError(f"{self.name()}: file={self.file} does not exist")

    def passage(self, space: Space) -> Passage:
        """As many examples as there is room for, label after label, and texts that are not among them."""
        labels, asked, examples = self._of_corpus(space, self.file) if self.file else self._made(space)
        offered = f"Choose one of these: {'; '.join(labels)}."
        asks = tuple(
            Ask(
                text=f"What is the label of the text below? {offered}\n\nText: {one.part(self.part)}", opening="Label:", right=one.label,
                choices=labels, most_tokens=12, about={"part": self.part},
            )
            for one in asked
        )  # fmt: skip

        def text(count: int, rest: int) -> str:
            shown = [(one.part(self.part), one.label) for one in examples.first(count + 1)[: count + 1]]
            if rest and len(shown) > count:
                shown[-1] = (" ".join(shown[-1][0].split()[:rest]), shown[-1][1])
            return _HEAD + "".join(f"Text: {said}\nLabel: {label}\n\n" for said, label in shown[: count + bool(rest)])

        count, rest = space.topped(text, asks, least=len(labels), most=_CUT)
        if count > len(examples.first(count)):
            raise InputError(
                f"{self.file} has only {len(examples.first(count))} texts to show, which do not fill {space.length} {space.units.name}; "
                "choose shorter lengths, or give more texts"
            )
        return Passage(text=text(count, rest), asks=asks)

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the right label, and no other, is in the first sentence that has any."""
        return choice_said(ask, written)

    def _made(self, space: Space) -> "tuple[tuple[str, ...], list[LabelledText], Drawn[LabelledText]]":
        """Labels mean nothing by themselves: which topic has which, the examples alone say."""
        labels = space.rng("labels").permutation(_LABELS).tolist()
        wanted, shown = _in_turn(len(labels), space.rng("asked")), _in_turn(len(labels), space.rng("shown"))
        rng, more = space.rng("texts"), space.rng("examples")
        asked = [made(topic, labels[topic], rng) for topic in islice(wanted, self.questions)]

        def example() -> LabelledText:
            topic = next(shown)
            return made(topic, labels[topic], more)

        return _LABELS, asked, Drawn(example)

    def _of_corpus(self, space: Space, file: Path) -> "tuple[tuple[str, ...], list[LabelledText], _Shown]":
        texts, rng = corpus(file), space.rng("corpus")
        labels = tuple(sorted({one.label for one in texts}))
        order = [texts[place] for place in rng.permutation(len(texts))]
        asked, groups = order[: self.questions], [[one for one in order[self.questions :] if one.label == label] for label in labels]
        if lacking := [label for label, group in zip(labels, groups, strict=True) if not group]:
            raise InputError(f"{file} has too few texts of the label {lacking[0]!r} to show one and ask {self.questions}")
        return labels, asked, _Shown(groups)


class _Shown:
    """Texts of each label in turn, while there are any. Args: groups: of each label."""

    def __init__(self, groups: list[list[LabelledText]]) -> None:
        longest = max(map(len, groups))
        self._texts = [group[place] for place in range(longest) for group in groups if place < len(group)]

    def first(self, count: int) -> list[LabelledText]:
        """So many, or all."""
        return self._texts[:count]


def _in_turn(topics: int, rng: np.random.Generator) -> Iterator[int]:
    """All topics in random order, and again in that order."""
    return cycle(rng.permutation(topics).tolist())


METHOD = LengthSplitClassification
EXAMPLES = (
    LengthSplitClassification(),
    LengthSplitClassification(part="headline"),
    LengthSplitClassification(part="document", questions=3),
)
BAD = ({"questions": 0}, {"part": "title"}, {"file": "no/such/file.jsonl"})

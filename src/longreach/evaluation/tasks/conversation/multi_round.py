"""Multi-round coreference: in a long conversation the same piece of writing was asked for again and again; the n-th one is repeated.

Paper: Michelangelo: Long Context Evaluations Beyond Haystacks via Latent Structure Queries, 2024, arXiv:2409.12640
Cost: one pass over each conversation for all its questions; each answer is a piece of writing.
Limits: the pieces are real text with a title, and not about what they say; models that do not follow instructions get nothing, for an
answer has to begin with a certain word.
Differs from the paper: requests, marks and the word to begin with are those of OpenAI's MRCR (huggingface.co/datasets/openai/mrcr); pieces
of writing are made from real text, not by a model; several questions to each conversation.
"""

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import ClassVar

import numpy as np

from longreach.core.errors import InputError
from longreach.core.method import MethodInfo, at_least, at_most
from longreach.evaluation.asking.items import Drawn, spread, woven
from longreach.evaluation.asking.passage import Ask, Passage, Turn
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.words import some_nouns
from longreach.evaluation.text_task import Ability, TextTask

_FORMS = ("poem", "letter", "story", "song", "speech", "riddle")
_TOPICS = 6  # so that there are 36 different requests
_ASKS = ("Write {}.", "Please write {}.", "Now write {}.", "Could you write {}?", "I would like {}.", "Next, {}, please.")
_LINE = 6  # words of a line of verse
_ORDINALS = ("1st", "2nd", "3rd")
_END = "Those are all pieces of writing. Now repeat one of them."


@dataclass(frozen=True, kw_only=True)
class _Round:
    """Args: wanted: what is asked for, as "a poem about a tapir". asked: in these words. reply: the piece of writing."""

    wanted: str
    asked: str
    reply: str

    @property
    def turns(self) -> tuple[Turn, Turn]:
        return Turn(role="user", text=self.asked), Turn(role="assistant", text=self.reply)


@dataclass(frozen=True, kw_only=True)
class MultiRound(TextTask):
    """Args: repeats: how often what is asked about was written (OpenAI: 2, 4 or 8; 2 to 20). questions: to each conversation, about
    different requests (1 to 12). letters: characters of a piece of writing (>= 60).
    """

    info: ClassVar = MethodInfo(
        title="Michelangelo: Long Context Evaluations Beyond Haystacks via Latent Structure Queries", paper="arXiv:2409.12640"
    )
    ability: ClassVar[Ability] = "ordering"
    metric: ClassVar[str] = "similarity"
    repeats: int = 4
    questions: int = 4
    letters: int = 300

    def __post_init__(self) -> None:
        at_least(self, 2, "repeats")
        at_least(self, 1, "questions")
        at_least(self, 60, "letters")
        at_most(self, 20, "repeats")
        at_most(self, 12, "questions")

    def passage(self, space: Space) -> Passage:
        """As many rounds as there is room for; those that are asked about stand in parts of their own."""
        rng = space.rng()
        topics = some_nouns(rng, _TOPICS)
        wanted = [f"a {form} about {'an' if topic[0] in 'aeiou' else 'a'} {topic}" for form in _FORMS for topic in topics]
        wanted = [wanted[place] for place in rng.permutation(len(wanted)).tolist()]
        asked, others = wanted[: self.questions], wanted[self.questions :]
        depths = spread(self.questions * self.repeats, rng)
        rounds = [(depth, self._round(space, rng, asked[place // self.repeats])) for place, depth in enumerate(depths)]
        asks = tuple(self._ask(rng, one, sorted(rounds, key=lambda each: each[0])) for one in asked)
        later = space.rng("others")
        drawn = Drawn(lambda: self._round(space, later, others[int(later.integers(len(others)))]))

        def turns(count: int, rest: int) -> list[Turn]:
            whole = [turn for one in woven(drawn.first(count), rounds) for turn in one.turns]
            if rest:
                asked, reply = drawn.first(count + 1)[-1].turns
                whole += [asked, Turn(role="assistant", text=reply.text[:rest])]
            return whole

        return Passage(text=_END, asks=asks, turns=tuple(turns(*space.talked(turns, _END, asks, least=0, most=2 * self.letters))))

    def _round(self, space: Space, rng: np.random.Generator, wanted: str) -> _Round:
        text = space.filler.text
        if len(text) < 2 * self.letters:
            raise InputError(f"the text is too short for {self.name()}; give more text (--text)")
        start = int(rng.integers(len(text) - 2 * self.letters))
        words = text[start : start + 2 * self.letters].split()[1:-1]  # those at the ends may be torn
        asked = _ASKS[int(rng.integers(len(_ASKS)))].format(wanted)
        return _Round(wanted=wanted, asked=asked, reply=_laid_out(wanted, words, self.letters))

    def _ask(self, rng: np.random.Generator, wanted: str, rounds: list[tuple[float, _Round]]) -> Ask:
        """Args: rounds: with their depths, in order."""
        own = [(depth, one) for depth, one in rounds if one.wanted == wanted]
        place = int(rng.integers(len(own)))
        depth, one = own[place]
        ordinal = _ORDINALS[place] if place < len(_ORDINALS) else f"{place + 1}th"
        word = rng.bytes(5).hex()
        right = f"{word}\n{one.reply}"
        choices = tuple(f"{word}\n{each.reply}" for _, each in own)
        return Ask(
            text=f"Write {word}, and then the {ordinal} {wanted.removeprefix('a ')}, word for word. Write nothing else.",
            right=right, choices=choices, most_tokens=2 * len(right) // 3 + 16, until=(), depth=depth,
            evidence=(one.reply,), about={"place": place + 1}, expected=word,
        )  # fmt: skip

    def mark(self, ask: Ask, written: str) -> float:
        """How similar what follows the word is to the right piece: difflib's ratio; 0 where the answer does not begin with the word."""
        given = written.strip()
        if not given.startswith(ask.expected):
            return 0.0
        return SequenceMatcher(None, given.removeprefix(ask.expected).strip(), ask.right.removeprefix(ask.expected).strip()).ratio()


def _laid_out(wanted: str, words: list[str], letters: int) -> str:
    """So many characters of the words at most, as a piece of writing with its title."""
    kept: list[str] = []
    while words and sum(map(len, kept)) + len(kept) + len(words[0]) <= letters:
        kept.append(words.pop(0))
    title = f"{wanted[0].upper()}{wanted[1:]}\n\n"
    if " poem " in wanted or " song " in wanted:
        return title + "\n".join(" ".join(kept[place : place + _LINE]) for place in range(0, len(kept), _LINE))
    return f"{title}Dear friend,\n{' '.join(kept)}\nYours" if " letter " in wanted else title + " ".join(kept)


METHOD = MultiRound
EXAMPLES = (MultiRound(), MultiRound(repeats=2, questions=2, letters=100))
BAD = ({"repeats": 1}, {"repeats": 21}, {"questions": 0}, {"questions": 13}, {"letters": 59})

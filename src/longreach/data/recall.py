"""Synthetic recall exercises: sequences that can only be predicted by finding something said earlier.

Five kinds, each with the thing to be recalled at a random distance: a passkey in filler text (Mohtashami and Jaggi 2023,
arXiv:2305.16300), facts asked for later, key-value records looked up later, spans copied word for word, and one passage repeated to
the end. The dense ones (records, repetition) teach looking back early; the sparse ones teach it at every distance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Tokens = list[int]

_NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
_PASSKEY_HEAD = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. "
    "I will quiz you about the important information there.\n"
)
_FACTS = (  # statement, question that ends right before the value
    ("The {attribute} of {name} is {value}.\n", "What is the {attribute} of {name}? The {attribute} of {name} is"),
    ("The {attribute} for {name} is: {value}.\n", "The {attribute} for {name} is:"),
    ("Remember that the {attribute} of {name} is {value}.\n", "Question: what is the {attribute} of {name}? Answer:"),
    ("{name} has the {attribute} {value}.\n", "{name} has the {attribute}"),
    ("One of the special magic {attribute}s for {name} is: {value}.\n", "The special magic {attribute} for {name} is:"),
)
_ATTRIBUTES = ("number", "word", "pass key", "code", "name", "secret", "colour", "password", "city", "answer")


@dataclass(frozen=True, kw_only=True)
class RecallGenerator:
    """Makes exercises of an exact length in tokens.

    Args: encode: text -> ids without special tokens. filler: [N] ids of real text, N far above the length asked for.
    words: plain words to make names and values of. eos: id that ends a document.
    """

    encode: Callable[[str], Tokens]
    filler: np.ndarray[Any, Any]
    words: Sequence[str] | np.ndarray[Any, Any]
    eos: int

    def sample(self, rng: np.random.Generator, length: int) -> Tokens:
        """One exercise of exactly `length` tokens; the kind is drawn at random."""
        kind = rng.choice(5, p=(0.15, 0.2, 0.2, 0.1, 0.35))
        tokens = (self._passkey, self._facts, self._records, self._copy, self._repeat)[kind](rng, length)
        return (tokens + self._text(rng, length))[:length]

    def _text(self, rng: np.random.Generator, count: int) -> Tokens:
        if count <= 0:
            return []
        start = int(rng.integers(0, len(self.filler) - count))
        return self.filler[start : start + count].tolist()

    def _value(self, rng: np.random.Generator) -> str:
        if rng.random() < 0.5:
            return str(rng.integers(10 ** (digits := int(rng.integers(2, 8))), 10 ** (digits + 1)))
        return str(rng.choice(self.words))

    def _passkey(self, rng: np.random.Generator, length: int) -> Tokens:
        key = rng.integers(10_000, 100_000)
        head = self.encode(_PASSKEY_HEAD)
        fact = self.encode(f"\nThe pass key is {key}. Remember it. {key} is the pass key.\n")
        query = [*self.encode(f"\nWhat is the pass key? The pass key is {key}."), self.eos]
        if (room := length - len(head) - len(fact) - len(query)) < 0:
            return self._copy(rng, length)
        if rng.random() < 0.5:
            noise = self.encode(_NOISE)
            filler = (noise * (room // len(noise) + 1))[:room]
        else:
            filler = self._text(rng, room)
        depth = int(rng.integers(0, room + 1))
        return head + filler[:depth] + fact + filler[depth:] + query

    def _facts(self, rng: np.random.Generator, length: int) -> Tokens:
        pairs: list[tuple[Tokens, list[Tokens]]] = []
        for _ in range(int(rng.integers(1, 9))):
            statement, question = _FACTS[rng.integers(len(_FACTS))]
            slots = {"attribute": rng.choice(_ATTRIBUTES), "name": str(rng.choice(self.words)).capitalize()}
            value = self._value(rng)
            asked = question.format(**slots)
            answer = self.encode(f"\n{asked} {value}.\n")
            pairs.append((self.encode("\n" + statement.format(**slots, value=value)), [answer] * int(rng.integers(1, 4))))
        return self._scatter(rng, length, pairs)

    def _records(self, rng: np.random.Generator, length: int) -> Tokens:
        count = int(rng.integers(3, 16))
        keys = rng.choice(self.words, size=count, replace=False)
        values = [self._value(rng) for _ in keys]
        before, after = (": ", "\n") if rng.random() < 0.5 else (" = ", ";\n")
        lines = [self.encode(f"{k}{before}{v}{after}") for k, v in zip(keys, values, strict=True)]
        stated = [token for line in lines for token in line]
        newline = self.encode("\n")
        if rng.random() < 0.5:  # dense: nothing but lookups
            tokens = stated
            while len(tokens) < length:
                tokens = tokens + newline + [token for i in rng.permutation(count) for token in lines[i]]
            return tokens
        queries = [token for i in rng.permutation(count)[: max(1, count // 2)] for token in lines[i]]
        room = max(0, length - len(stated) - len(queries))
        first = int(rng.integers(0, room + 1))
        return [*self._text(rng, first), *newline, *stated, *self._text(rng, room - first), *newline, *queries]

    def _copy(self, rng: np.random.Generator, length: int) -> Tokens:
        pairs: list[tuple[Tokens, list[Tokens]]] = []
        for _ in range(int(rng.integers(1, 4))):
            span = self._span(rng, int(rng.integers(8, 48)))
            pairs.append((span, [span]))
        return self._scatter(rng, length, pairs)

    def _repeat(self, rng: np.random.Generator, length: int) -> Tokens:
        longest = max(9, length // 2)
        span = self._span(rng, int(np.exp(rng.uniform(np.log(8), np.log(longest)))))  # short ones as often as long ones
        return span * (length // len(span) + 1)

    def _span(self, rng: np.random.Generator, count: int) -> Tokens:
        """About `count` tokens: real text, words in no order, or single tokens in no order."""
        kind = rng.integers(3)
        if kind == 0:
            return self._text(rng, count)
        if kind == 1:
            return self.encode(" ".join(str(word) for word in rng.choice(self.words, size=max(2, count // 2))))[:count]
        return self.filler[rng.integers(0, len(self.filler), size=count)].tolist()

    def _scatter(self, rng: np.random.Generator, length: int, pairs: list[tuple[Tokens, list[Tokens]]]) -> Tokens:
        """Statements and, later, their questions, at random places in filler; drops the questions that do not fit."""
        kept: list[tuple[Tokens, list[Tokens]]] = []
        room = length
        for statement, questions in pairs:
            fitting = [q for number, q in enumerate(questions, 1) if len(statement) + number * len(q) <= room]
            if fitting:
                kept.append((statement, fitting))
                room -= len(statement) + sum(map(len, fitting))
        events = []
        for statement, questions in kept:
            said, *asked = sorted(rng.random(1 + len(questions)))
            events += [(said, statement), *zip(asked, questions, strict=True)]
        gaps = np.diff([0, *sorted(rng.integers(0, room + 1, size=len(events))), room])
        tokens: Tokens = []
        for gap, (_, part) in zip(gaps, sorted(events, key=lambda event: event[0]), strict=False):
            tokens += self._text(rng, int(gap)) + part
        return tokens

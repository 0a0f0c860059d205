"""Long question answering made without a language model: a real text that ends in questions about its own words, with the answers.

As in the synthetic data of arXiv:2404.19553, a text is asked about one detail or about several in one dialogue; here a detail is what
follows a few words of it, so that the answer is true and can only be found far back.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from longreach.data.documents import Documents, Ids

Tokens = list[int]


@dataclass(frozen=True, kw_only=True)
class QuestionGenerator:
    """Makes texts of an exact length that end in questions about themselves, and their answers.

    Args: encode, decode: of the tokenizer, without special tokens. documents: real text. eos: id that ends a document.
    """

    encode: Callable[[str], Tokens]
    decode: Callable[[Tokens], str]
    documents: Documents
    eos: int

    def sample(self, rng: np.random.Generator, length: int) -> Tokens:
        """One text of `length` tokens with one question (half of the time) or up to four, each with its answer."""
        count = 1 if rng.random() < 0.5 else int(rng.integers(2, 5))
        text = self.documents.span(rng, length)[0]
        asked: Tokens = []
        for start in self._starts(rng, count, length):
            question = self._question(rng, text, start)
            if len(asked) + len(question) < length // 2:
                asked += question
        asked = [*asked, self.eos][: length - 1]
        return [*text[: length - len(asked)].tolist(), *asked]

    def _starts(self, rng: np.random.Generator, count: int, length: int) -> list[int]:
        """Where the passages begin, in the order of the text, before the questions can begin."""
        return sorted(int(start) for start in rng.integers(0, max(1, length // 2 - 64), size=count))

    def _question(self, rng: np.random.Generator, text: Ids, start: int) -> Tokens:
        """Some words of the text, and as many as follow them; nothing where the passage has too few."""
        words = self.decode(text[start : start + _PASSAGE].tolist()).split()[1:-1]  # the first and the last may be cut
        count = len(words) // 2
        if count < _FEWEST:
            return []
        wording = _WORDINGS[rng.integers(len(_WORDINGS))]
        return self.encode(wording.format(cue=" ".join(words[:count]), answer=" ".join(words[count:])))


_PASSAGE = 40  # tokens
_FEWEST = 3  # words
_WORDINGS = (
    "\n\nQuestion: what follows the words “{cue}” in the text?\nAnswer: {answer}\n",
    "\n\nUser: How does the passage go on that says “{cue}”?\nAssistant: {answer}\n",
    "\n\nThe text says: {cue} {answer}\n",
)

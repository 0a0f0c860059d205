"""Long instruction data in the manner of "Bootstrap Your Own Context Length" (arXiv:2412.18860), made without a language model.

As there: an instruction is made from a chunk of text; chunks of other documents that have to do with it are retrieved; every chunk is
summarised by itself, with regard to the instruction, and what does not bear on it is left out; the summaries make the response. A training
text is the instruction, the chunks as they are, and the response: the summaries alone are never seen.
Here the instruction asks for a word of the chunk, chunks that hold the word are retrieved among others, and the summary of a chunk is its
first sentence with the word, where the paper has a language model and a trained retriever. The responses are true and whole.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from longreach.core.errors import InputError
from longreach.data.documents import Documents

Tokens = list[int]


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """A piece of text. Args: about: word -> the first whole sentence that holds it."""

    ids: Tokens
    about: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class BootstrapGenerator:
    """Makes texts of an exact length: an instruction, chunks of documents, what they say to it, and running text where there is room.

    Args: encode, decode: of the tokenizer, without special tokens. documents: real text. eos: id that ends a document.
    Raises: InputError for text without sentences, as languages that do not part their words by spaces.
    """

    encode: Callable[[str], Tokens]
    decode: Callable[[Tokens], str]
    documents: Documents
    eos: int

    def __post_init__(self) -> None:
        if not _about(self.decode(self.documents.ids[:_LOOK].tolist())):
            raise InputError(
                f"bootstrap tasks are made of sentences of {_FEWEST} to {_MOST} words, parted by spaces, and the text begins without one; "
                "give other text, or leave bootstrap out of the mixture"
            )

    def sample(self, rng: np.random.Generator, length: int) -> Tokens:
        """One text of `length` tokens; running text alone where there is room for no chunk with a whole sentence."""
        made = self._task(rng, length)
        return [*made, *self.documents.span(rng, max(1, length - len(made)))[0].tolist()][:length]

    def _task(self, rng: np.random.Generator, length: int) -> Tokens:
        """An instruction, chunks, and a response that quotes a sentence of every chunk that holds the topic; empty where none fits."""
        chunks = self._chunks(rng, length)
        if (topic := _topic(rng, chunks)) is None:
            return []
        ask, answer = _WORDINGS[rng.integers(len(_WORDINGS))]
        task, between = self.encode(ask.format(topic=topic)), self.encode("\n\n")
        response = self.encode(answer)
        most = length // _RESPONSE
        count = (length - most - len(task)) // (len(chunks[0].ids) + len(between))
        quoted = 0
        for chunk in _chosen(rng, chunks, topic, max(0, count)):
            quote = self.encode(f"- {chunk.about[topic]}\n") if topic in chunk.about else []
            if len(response) + len(quote) < most:
                task, response = task + chunk.ids + between, response + quote
                quoted += bool(quote)
        return [*task, *response, self.eos] if quoted else []

    def _chunks(self, rng: np.random.Generator, length: int) -> list[_Chunk]:
        """Twice as many as fit, of random documents; the first is what the instruction is made from."""
        size = max(_SHORTEST, min(_LONGEST, length // _CHUNKS))
        found = []
        for _ in range(2 * max(1, length // size)):
            ids = self.documents.span(rng, size)[0].tolist()
            found.append(_Chunk(ids=ids, about=_about(self.decode(ids))))
        return found


def _chosen(rng: np.random.Generator, chunks: list[_Chunk], topic: str, count: int) -> list[_Chunk]:
    """`count` chunks, shuffled: up to half of them hold the topic, the first one among these."""
    holding = [chunk for chunk in chunks if topic in chunk.about][: max(1, count // 2)]
    others = [chunk for chunk in chunks if topic not in chunk.about]
    together = [*holding, *others][:count]
    return [together[number] for number in rng.permutation(len(together))]


def _topic(rng: np.random.Generator, chunks: list[_Chunk]) -> str | None:
    """A word of the first chunk, rather one that few others hold, too; None where no sentence of it is whole."""
    counts = Counter(word for chunk in chunks for word in chunk.about)
    words = list(chunks[0].about)
    shared = [word for word in words if 2 <= counts[word] <= max(2, len(chunks) // 4)]
    return str(rng.choice(shared or words)) if words else None


def _about(text: str) -> dict[str, str]:
    """word -> the first sentence that holds it; the first and the last piece of the text may be cut, and are no sentences."""
    about: dict[str, str] = {}
    for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n", text)[1:-1]:
        words = sentence.split()
        if _FEWEST <= len(words) <= _MOST:
            for word in re.findall(r"[^\W\d_]{5,}", sentence.lower()):
                about.setdefault(word, " ".join(words))
    return about


_RESPONSE = 4  # at most a fourth of a text is the response
_CHUNKS = 16  # that a text is made of
_SHORTEST, _LONGEST = 96, 4096  # tokens of a chunk; the longest is the paper's
_FEWEST, _MOST = 4, 60  # words of a sentence
_LOOK = 20_000  # tokens that are looked at for a first sentence
_WORDINGS = (
    ("Task: find every text below that speaks of “{topic}”, and say what it says.\n\n", "Answer:\n"),
    ("What do the following texts say about “{topic}”? Quote a sentence of each that does.\n\n", "What they say:\n"),
    ("User: Here are some texts. Collect from them what is said of “{topic}”.\n\n", "Assistant:\n"),
)

"""Texts as tokens, and spans of running text drawn from them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from longreach.core.files import replacing_file
from longreach.core.progress import SILENT, Progress
from longreach.data.sources import Texts

Ids = npt.NDArray[np.int32]


class Documents:
    """Tokenized documents, one after the other.

    Args: ids: [N] of all documents, each without special tokens. ends: [D] where each ends. end: ids that close a document. key: changes
    with the texts and the tokenizer.
    """

    def __init__(self, ids: Ids, ends: npt.NDArray[np.int64], end: Sequence[int] = (), key: str = "") -> None:
        self.ids, self.ends, self.end, self.key = ids, ends, list(end), key
        self.starts = np.concatenate([[0], ends[:-1]])

    def __len__(self) -> int:
        return len(self.ends)

    def span(self, rng: np.random.Generator, length: int) -> tuple[Ids, Ids]:
        """(ids, document numbers), each [length]: running text of one document where it is long enough, else of several.

        The first document is drawn by its length. Those that follow are drawn as they come, from their beginnings, and documents are
        closed by `end`.
        """
        at = int(rng.integers(0, len(self.ids)))
        number = int(np.searchsorted(self.ends, at, side="right"))
        first, last = int(self.starts[number]), int(self.ends[number])
        if last - first >= length:
            start = int(rng.integers(first, last - length + 1))
            return self.ids[start : start + length], np.zeros(length, dtype=np.int32)
        parts: list[Ids] = []
        have = 0
        while have < length:
            part = np.array([*self.ids[first:last], *self.end], dtype=np.int32)
            parts.append(part)
            have += len(part)
            number = int(rng.integers(0, len(self)))
            first, last = int(self.starts[number]), int(self.ends[number])
        numbers = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        return np.concatenate(parts)[:length], numbers[:length]


def tokenized(texts: Texts, tokenizer: PreTrainedTokenizerBase, cache: Path, progress: Progress = SILENT) -> Documents:
    """The texts as tokens, kept in the file `cache` (`.npz`) for the next run with the same texts and tokenizer."""
    progress.start("tokenizing", sum(len(text) for text in texts.contents))
    digest = hashlib.sha256(json.dumps([len(tokenizer), tokenizer.eos_token_id]).encode())
    for name, text in zip(texts.names, texts.contents, strict=True):
        digest.update(f"{name} {len(text)} ".encode() + text.encode())
    key = digest.hexdigest()[:16]
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    if cache.is_file():
        with np.load(cache) as saved:
            if str(saved["key"]) == key:
                return Documents(saved["ids"], saved["ends"], end, key)
    encoded = []
    for text in texts.contents:
        encoded.append(np.array(encode(tokenizer, text), dtype=np.int32))
        progress.advance(len(text))
    documents = Documents(np.concatenate(encoded), np.cumsum([len(ids) for ids in encoded]), end, key)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(cache) as partial, partial.open("wb") as file:
        np.savez(file, key=key, ids=documents.ids, ends=documents.ends)
    return documents


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text, without special tokens; text that spells a special token is text."""
    ids: list[int] = _call(tokenizer, text, add_special_tokens=False, split_special_tokens=True)
    return ids


def prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that the tokenizer puts before a text (BOS)."""
    bare, full = _call(tokenizer, "a", add_special_tokens=False), _call(tokenizer, "a", add_special_tokens=True)
    start = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)
    return full[:start]


def _call(tokenizer: PreTrainedTokenizerBase, text: str, **settings: Any) -> list[int]:
    ids: list[int] = tokenizer(text, verbose=False, **settings)["input_ids"]  # verbose warns of long texts
    return ids


def plain_words(texts: Sequence[str], most: int = 20_000) -> list[str]:
    """Words of 3 to 9 small letters a-z, sorted: to make names and values of."""
    found: set[str] = set()
    for text in texts:
        found.update(word for word in text.split() if 3 <= len(word) <= 9 and word.isascii() and word.isalpha() and word.islower())
        if len(found) >= most:
            break
    return sorted(found)

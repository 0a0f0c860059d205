"""Text to ids and back, as texts that are put together from parts need it."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from longreach.core.errors import InputError

_CHARACTERS = 6  # more than most tokens have
_MARGIN = 16  # tokens near a cut in the text may differ from those of the whole text


class Encoder:
    """Text to ids and back, as prompts need it.

    Args: tokenizer: of the model. special: text that spells a special token is that token, as in a chat template. `prefix`: the special
    tokens that it puts before a text (BOS), to stand before every input.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, special: bool = False) -> None:
        self.tokenizer, self.special = tokenizer, special
        self.prefix = self._prefix()
        self._before = {before: self.encode(before) for before in ("\n", ".")}  # that a text inside another may stand behind

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens around it; text that spells one is text, unless `special` is set."""
        (found,) = self._plain([text])
        return found if isinstance(found, list) else list(found.ids)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many ids each text has by itself, as `encode` gives them: many long ones on all cores."""
        return [len(found) for found in self._plain(texts)]

    def encode_inside(self, text: str) -> list[int]:
        """Ids of a text that stands inside another: without the space that some tokenizers put before the first word."""
        for before, first in self._before.items():
            both = self.encode(before + text)
            if both[: len(first)] == first:
                return both[len(first) :]
        return self.encode(text)

    def first_tokens(self, text: str, count: int) -> list[int]:
        """The first `count` ids of a text (fewer where it has fewer), without encoding all of it."""
        taken = (count + _MARGIN) * _CHARACTERS
        while True:
            ids = self.encode(text[:taken])
            if taken >= len(text) or len(ids) >= count + _MARGIN:
                return ids[:count]
            taken *= 2

    def breaks(self, before: int, after: int) -> bool:
        """Whether a line or a sentence ends between two neighbouring tokens."""
        first = self._decode(before)
        return first.endswith("\n") or (first.endswith((".", "!", "?")) and self._decode(before, after).startswith(f"{first} "))

    def _decode(self, *ids: int) -> str:
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def _prefix(self) -> list[int]:
        bare, full = self._call("a", add_special_tokens=False), self._call("a", add_special_tokens=True)
        starts = [i for i in range(len(full)) if full[i : i + len(bare)] == bare]
        if not bare or not starts:
            raise InputError(f"the tokenizer ({type(self.tokenizer).__name__}) writes a text differently beside its special tokens")
        return full[: starts[0]]

    def _plain(self, texts: Sequence[str]) -> Sequence[list[int] | Encoding]:
        """Ids of each text without special tokens around it, in a list or in an Encoding.

        Where the tokenizer hands texts on to its backend, as transformers' own do, the backend is asked without places in the text, which
        nobody needs here and which take more than a third of the time.
        """
        if self._hands_on:
            backend = self.tokenizer.backend_tokenizer
            if backend.truncation is None and backend.padding is None:
                if backend.encode_special_tokens is self.special:
                    backend.encode_special_tokens = not self.special  # as every call of the tokenizer does
                return list(backend.encode_batch_fast(list(texts), add_special_tokens=False))
        return [self._call(text, add_special_tokens=False, split_special_tokens=not self.special) for text in texts]

    @property
    def _hands_on(self) -> bool:
        kind, fast = type(self.tokenizer), PreTrainedTokenizerFast
        return isinstance(self.tokenizer, fast) and kind.__call__ is fast.__call__ and kind._encode_plus is fast._encode_plus

    def _call(self, text: str, **settings: Any) -> list[int]:
        ids: list[int] = self.tokenizer(text, verbose=False, **settings)["input_ids"]  # verbose warns of long texts
        return ids

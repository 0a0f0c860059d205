"""Scripted chat models that are perfect inside their window: with them, whatever a workflow gets wrong is the workflow's own loss."""

import hashlib
import math
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from longreach.endpoint.base import ChatModel, Completion, Request, TokenLogprob
from longreach.endpoint.errors import ContextLengthError
from longreach.workflows.wording import (
    ABBREVIATION,
    ANSWER,
    CHOICE,
    FORMULA,
    MOVE,
    NOTES,
    NOTHING,
    PLAN,
    SENTENCE,
    SO_FAR,
    SUMMARY,
    TEXT,
)  # fmt: skip

UNKNOWN = "I do not know."
_MARKUP = 3  # tokens around a chat
_SURE, _UNSURE = 0.99, 1 / 20


class PerfectReader(ChatModel):
    """Knows, of all that it is shown, just what matters.

    Args: facts: sentences that matter, as they stand in the text. answer: right where all of them are in one prompt. window: tokens
    that prompt and answer may have together; more is an error, as with a real model. characters: of a token; None: a token is a word.
    concurrency: requests at a time. linked: each fact is known to matter only where those before it are in the prompt, too, as links of
    a chain are. fails_after: calls that are answered before the process is "killed".
    """

    def __init__(
        self,
        facts: Sequence[str],
        answer: str,
        *,
        window: int,
        characters: int | None = None,
        concurrency: int = 1,
        linked: bool = False,
        fails_after: int | None = None,
    ) -> None:
        self.facts, self.answer = tuple(fact.strip() for fact in facts), answer
        self.requests: list[Request] = []
        self._linked = linked
        self._window, self._characters, self._concurrency, self._fails_after = window, characters, concurrency, fails_after
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """As results state it."""
        return "perfect"

    @property
    def window(self) -> int:
        """In tokens."""
        return self._window

    @property
    def concurrency(self) -> int:
        """How many requests are answered at a time."""
        return self._concurrency

    def count(self, text: str) -> int | None:
        """Tokens of a text."""
        return self.size(text)

    def count_chat(self, messages: Sequence[Mapping[str, Any]]) -> int | None:
        """Tokens of a chat, with what a template adds."""
        return self.size_of_chat(messages)

    def size(self, text: str) -> int:
        """Tokens of a text, whether it tells or not."""
        return len(text.split()) if self._characters is None else -(-len(text) // self._characters)

    def size_of_chat(self, messages: Sequence[Mapping[str, Any]]) -> int:
        """Tokens of a chat, whether it tells or not."""
        return sum(self.size(str(message["content"])) for message in messages) + _MARKUP

    def ask(self, request: Request) -> Completion:
        """What a perfect reader writes. Raises: ContextLengthError for a prompt beyond the window; KeyboardInterrupt where it is killed."""
        prompt = str(request.messages[-1]["content"])
        read = self.size_of_chat(request.messages)
        with self._lock:
            if self._fails_after is not None and len(self.requests) >= self._fails_after:
                raise KeyboardInterrupt
            self.requests.append(request)
        if read + request.most_tokens > self._window:
            raise ContextLengthError("perfect", f"{read} tokens and {request.most_tokens} to write", limit=self._window)
        whole = self.written(prompt)
        text = self._first(whole, request.most_tokens)
        return Completion(
            text=text,
            finish_reason="stop" if text == whole else "length",
            prompt_tokens=read,
            completion_tokens=min(self.size(text), request.most_tokens),
            seconds=0.0,
            logprobs=None if request.logprobs is None else (self._logprob(text, prompt, request.logprobs),),
        )

    def _first(self, text: str, most: int) -> str:
        """A text's first tokens."""
        return " ".join(text.split(" ")[:most]) if self._characters is None else text[: most * self._characters]

    def known(self, prompt: str) -> list[str]:
        """The facts that are in a prompt, as far as it can know that they matter."""
        there = [fact in prompt for fact in self.facts]
        seen = there.index(False) if self._linked and not all(there) else len(there)
        return [fact for fact, known in zip(self.facts[:seen], there, strict=False) if known]

    def written(self, prompt: str) -> str:
        """All that it has to say, by how the prompt ends."""
        end = prompt.rstrip().rpartition("\n")[2]
        known = self.known(prompt)
        if end == MOVE:
            return self._move(prompt, known)
        if end == CHOICE:
            return "Yes" if known else "No"
        if end in (NOTES, SUMMARY):
            return " ".join(known) or NOTHING
        if end == FORMULA:
            return NOTHING
        if end == ANSWER:
            if len(known) == len(self.facts) or f"{SO_FAR}\n\n{self.answer}" in prompt:
                return self.answer
            return " ".join(known) or (NOTHING if f"only {NOTHING}" in prompt else UNKNOWN)
        if end in (PLAN, TEXT):
            raise AssertionError(f"it reads, and is asked to write: {end}")
        raise AssertionError(f"the prompt does not end as prompts of workflows do: {prompt[-80:]!r}")

    def _move(self, prompt: str, known: Sequence[str]) -> str:
        """It notes what it sees, searches once with the words of the task, and opens what that found."""
        noted = prompt.rpartition("\nNoted:\n")[2] if "\nNoted:\n" in prompt else ""
        if len(known) == len(self.facts):
            return f"answer: {self.answer}"
        if new := [fact for fact in known if fact not in noted]:
            return f"note: {new[0]}"
        made = (re.search(r"^Moves so far: (.*)$", prompt, re.MULTILINE) or ["", ""])[1]
        task = (re.search(r"^Task: (.*)$", prompt, re.MULTILINE) or ["", ""])[1]
        for wanted in [*known[::-1], task]:
            if f"search: {wanted}"[:60] not in made:
                return f"search: {wanted}"
        found = re.findall(r"^(\d+): ", prompt, re.MULTILINE)
        return next((f"open: {number}" for number in found if f"open: {number}" not in made), UNKNOWN)

    def _logprob(self, text: str, prompt: str, most: int) -> TokenLogprob:
        """It is sure of what it knows, and of nothing else."""
        sure = len(self.known(prompt)) > 0
        share = _SURE if sure else _UNSURE
        others = {f"other {number}": math.log((1 - share) / 19) for number in range(most - 1)}
        return TokenLogprob(token=text.split(" ")[0], logprob=math.log(share), top={text.split(" ")[0]: math.log(share), **others})


class ScriptedWriter(PerfectReader):
    """Writes as many words as it is asked for, or a share of them; a token is a word. Hardly a word of a text is in another one.

    Args: share: of the words asked for that it writes. fluent: whether it writes words at all; else each of its answers is as long as may
    be, and says nothing. points: lines of a plan that it writes. content: the examiner that it is finds nothing to object to. counts:
    whether it tells how many tokens a text has. The others: as `PerfectReader`.
    """

    def __init__(
        self,
        *,
        window: int,
        share: float = 1.0,
        fluent: bool = True,
        points: int = 5,
        content: bool = True,
        counts: bool = True,
        concurrency: int = 1,
        fails_after: int | None = None,
    ) -> None:
        super().__init__((), "", window=window, concurrency=concurrency, fails_after=fails_after)
        self._share, self._fluent, self._points = share, fluent, points
        self._content, self._counts = content, counts
        self.cut = 0  # answers that ended at their limit

    @property
    def name(self) -> str:
        """As results state it."""
        return "scripted"

    def count(self, text: str) -> int | None:
        """Words of a text, where it tells."""
        return super().count(text) if self._counts else None

    def count_chat(self, messages: Sequence[Mapping[str, Any]]) -> int | None:
        """Words of a chat, where it tells."""
        return super().count_chat(messages) if self._counts else None

    def ask(self, request: Request) -> Completion:
        """What it writes. Raises: as `PerfectReader`."""
        said = super().ask(request)
        with self._lock:
            self.cut += said.cut
        return said

    def written(self, prompt: str) -> str:
        """By how the prompt ends."""
        end = prompt.rstrip().rpartition("\n")[2]
        if not self._fluent:
            return "- " * self._window
        if end == TEXT:
            asked = int(re.findall(r"Write about (\d+) word", prompt)[-1])
            return " ".join(_words_of(prompt, max(1, int(asked * self._share)))) + "."
        if end == PLAN:
            return "\n ".join(f"{number}. Point {number} - Word Count: {100 * number} words" for number in range(1, self._points + 1))
        if end == SENTENCE:
            letters = re.findall(rf"{ABBREVIATION} (\w+)", prompt)[-1]
            said = [letter + word for letter, word in zip(letters, _words_of(prompt, len(letters)), strict=True)]
            return " ".join(said[: max(1, int(len(letters) * self._share))])
        if end == NOTES:
            return NOTHING if self._content else "It says too little."
        raise AssertionError(f"it writes, and is asked for something else: {end}")


def _words_of(prompt: str, count: int) -> list[str]:
    """So many words of five letters, hardly any of which another prompt gets, too."""
    first = int(hashlib.sha256(prompt.encode()).hexdigest()[:12], 16)
    return ["".join(chr(ord("a") + (first + number) // 26**place % 26) for place in range(5)) for number in range(count)]

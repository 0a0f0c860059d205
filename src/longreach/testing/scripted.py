"""Scripted chat models that are perfect inside their window: with them, whatever a workflow gets wrong is the workflow's own loss."""

import hashlib
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from longreach.endpoint.base import ChatModel, Completion, Request, TokenLogprob
from longreach.endpoint.errors import ContextLengthError
from longreach.workflows.wording import ABBREVIATION, ANSWER, CHOICE, MOVE, NOTES, NOTHING, PLAN, SENTENCE, SUMMARY, TEXT

UNKNOWN = "I do not know."
_MARKUP = 3  # tokens around a chat
_SURE, _UNSURE = 0.99, 1 / 20


class PerfectReader(ChatModel):
    """Knows, of all that it is shown, just what matters; a token is a word.

    Args: facts: sentences that matter, as they stand in the text. answer: right where all of them are in one prompt. window: words that
    prompt and answer may have together; more is an error, as with a real model. concurrency: requests at a time. move: prompt -> a move,
    where one is asked for. told: prompts are added to it. fails_after: calls that are answered before the process is "killed".
    """

    def __init__(
        self,
        facts: Sequence[str],
        answer: str,
        *,
        window: int,
        concurrency: int = 1,
        move: Callable[["PerfectReader", str], str] | None = None,
        fails_after: int | None = None,
    ) -> None:
        self.facts, self.answer = tuple(facts), answer
        self.requests: list[Request] = []
        self._window, self._concurrency, self._move, self._fails_after = window, concurrency, move, fails_after
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """As results state it."""
        return "perfect"

    @property
    def window(self) -> int:
        """In words."""
        return self._window

    @property
    def concurrency(self) -> int:
        """How many requests are answered at a time."""
        return self._concurrency

    def count(self, text: str) -> int | None:
        """Words of a text."""
        return len(text.split())

    def count_chat(self, messages: Sequence[Mapping[str, Any]]) -> int | None:
        """Words of a chat, with what a template adds."""
        return size_of_chat(messages)

    def ask(self, request: Request) -> Completion:
        """What a perfect reader writes. Raises: ContextLengthError for a prompt beyond the window; KeyboardInterrupt where it is killed."""
        prompt = str(request.messages[-1]["content"])
        read = size_of_chat(request.messages)
        with self._lock:
            if self._fails_after is not None and len(self.requests) >= self._fails_after:
                raise KeyboardInterrupt
            self.requests.append(request)
        if read + request.most_tokens > self._window:
            raise ContextLengthError("perfect", f"{read} words and {request.most_tokens} to write", limit=self._window)
        words = self.written(prompt).split(" ")
        text = " ".join(words[: request.most_tokens])
        cut = len(words) > request.most_tokens
        return Completion(
            text=text,
            finish_reason="length" if cut else "stop",
            prompt_tokens=read,
            completion_tokens=min(len(words), request.most_tokens),
            seconds=0.0,
            logprobs=None if request.logprobs is None else (self._logprob(text, prompt, request.logprobs),),
        )

    def known(self, prompt: str) -> list[str]:
        """The facts that are in a prompt."""
        return [fact for fact in self.facts if fact in prompt]

    def written(self, prompt: str) -> str:
        """All that it has to say, by how the prompt ends."""
        end = prompt.rstrip().rpartition("\n")[2]
        known = self.known(prompt)
        if end == MOVE and self._move is not None:
            return self._move(self, prompt)
        if end == CHOICE:
            return "Yes" if known else "No"
        if end in (NOTES, SUMMARY):
            return " ".join(known) or NOTHING
        if end in (ANSWER, MOVE):
            return self.answer if len(known) == len(self.facts) else " ".join(known) or UNKNOWN
        if end in (PLAN, TEXT):
            raise AssertionError(f"it reads, and is asked to write: {end}")
        raise AssertionError(f"the prompt does not end as prompts of workflows do: {prompt[-80:]!r}")

    def _logprob(self, text: str, prompt: str, most: int) -> TokenLogprob:
        """It is sure of what it knows, and of nothing else."""
        sure = len(self.known(prompt)) > 0
        share = _SURE if sure else _UNSURE
        others = {f"other {number}": math.log((1 - share) / 19) for number in range(most - 1)}
        return TokenLogprob(token=text.split(" ")[0], logprob=math.log(share), top={text.split(" ")[0]: math.log(share), **others})


class ScriptedWriter(PerfectReader):
    """Writes as many words as it is asked for, or a share of them; a token is a word. Hardly a word of a text is in another one.

    Args: share: of the words asked for that it writes. fluent: whether it writes words at all; else each of its answers is as long as may
    be, and says nothing. points: lines of a plan that it writes. content: the examiner that it is finds nothing to object to. sentences:
    abbreviation -> what it takes it to stand for. counts: whether it tells how many tokens a text has. The others: as `PerfectReader`.
    """

    def __init__(
        self,
        *,
        window: int,
        share: float = 1.0,
        fluent: bool = True,
        points: int = 5,
        content: bool = True,
        sentences: Mapping[str, str] = MappingProxyType({}),
        counts: bool = True,
        concurrency: int = 1,
        fails_after: int | None = None,
    ) -> None:
        super().__init__((), "", window=window, concurrency=concurrency, fails_after=fails_after)
        self._share, self._fluent, self._points = share, fluent, points
        self._content, self._sentences, self._counts = content, sentences, counts
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
            said = self._sentences.get(letters) or " ".join(
                letter + word for letter, word in zip(letters, _words_of(prompt, len(letters)), strict=True)
            )
            return " ".join(said.split()[: max(1, int(len(letters) * self._share))])
        if end == NOTES:
            return NOTHING if self._content else "It says too little."
        raise AssertionError(f"it writes, and is asked for something else: {end}")


def size_of_chat(messages: Sequence[Mapping[str, Any]]) -> int:
    """Words of a chat, with what a template adds."""
    return sum(len(str(message["content"]).split()) for message in messages) + _MARKUP


def _words_of(prompt: str, count: int) -> list[str]:
    """So many words of five letters, hardly any of which another prompt gets, too."""
    first = int(hashlib.sha256(prompt.encode()).hexdigest()[:12], 16)
    return ["".join(chr(ord("a") + (first + number) // 26**place % 26) for place in range(5)) for number in range(count)]

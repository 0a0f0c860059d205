"""A model that always writes as much as it may, at no cost: with it, a workflow shows beforehand what it costs at most."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from longreach.endpoint.base import ChatModel, Completion, Request, TokenLogprob
from longreach.workflows.base import Workflow
from longreach.workflows.wording import ANSWER, CHOICE, FORMULA, MOVE, NOTES, PLAN, SENTENCE, SUMMARY, TEXT

_ROLES = {
    ANSWER: "answer",
    NOTES: "notes",
    SUMMARY: "summary",
    MOVE: "move",
    CHOICE: "choice",
    FORMULA: "formula",
    PLAN: "plan",
    TEXT: "text",
    SENTENCE: "sentence",
}
_SAMPLE = 96  # words by which it is seen how many tokens a word has
_EVEN = TokenLogprob(token="", logprob=-math.log(2), top={"a": -math.log(2), "b": -math.log(2)})


class LongestAnswers(ChatModel):
    """Answers as long as it may, or what the workflow says leads to the most work. Counts tokens as the model does that it stands for."""

    def __init__(self, workflow: Workflow, model: ChatModel) -> None:
        self._workflow, self._model = workflow, model
        self._filler = cache(self._fill)

    @property
    def name(self) -> str:
        """That of the model that it stands for."""
        return self._model.name

    def count(self, text: str) -> int | None:
        """As the model counts."""
        return self._model.count(text)

    def count_chat(self, messages: Sequence[Mapping[str, Any]]) -> int | None:
        """As the model counts."""
        return self._model.count_chat(messages)

    def ask(self, request: Request) -> Completion:
        """The longest answer."""
        prompt = str(request.messages[-1]["content"]) if request.messages else str(request.prompt)
        role = next((role for end, role in _ROLES.items() if prompt.rstrip().endswith(end)), "")
        text = self._workflow.most_work(role) or self._filler(request.most_tokens)
        logprobs = None if request.logprobs is None else (_EVEN,)
        return Completion(text=text, finish_reason="length", completion_tokens=request.most_tokens, seconds=0.0, logprobs=logprobs)

    def _fill(self, most: int) -> str:
        """Words of nearly so many tokens, and never more."""
        filler = self._workflow.filler
        words = most * _SAMPLE // max(1, self._count(filler * _SAMPLE))
        while words > 1 and (counted := self._count(filler * words)) > most:
            words = min(words - 1, words * most // counted)
        return filler * max(1, words)

    def _count(self, text: str) -> int:
        counted = self._model.count(text)
        return len(text) // self._workflow.filler_bytes if counted is None else counted

"""Messages in, ids out: by the chat template of the tokenizer, or a plain one where it has none."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from longreach.conversation.messages import Message, Turn, joined
from longreach.core.errors import InputError

_NAMES = {"user": "User", "assistant": "Assistant", "tool": "Tool"}
_SUMMARISE = (
    "Summarise the conversation below in a few sentences, for somebody who goes on with it. Keep names, numbers and what was agreed on.\n\n"
)
PLAIN = "User: ...\\nAssistant: ..."  # how the plain template is named to users


class Prompts:
    """The prompts of conversations for one tokenizer. Args: tools: that the model may call, as its template takes them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tools: Sequence[dict[str, Any]] | None = None) -> None:
        self.tokenizer = tokenizer
        self.tools = list(tools) if tools else None
        self.plain = not tokenizer.chat_template
        if self.plain and self.tools:
            raise InputError("the tokenizer has no chat template, and so nothing that says how tools are offered; leave tools away")

    @property
    def stops(self) -> tuple[str, ...]:
        """What the model writes where it would begin another message; nothing: the template's end token says it."""
        return tuple(f"\n{name}:" for name in _NAMES.values()) if self.plain else ()

    def text(self, messages: Sequence[Message], *, answer: bool = True) -> str:
        """The prompt as text; answer: with what makes the model answer.

        Raises: InputError for messages that the template refuses, or of which it would leave out calls of tools.
        """
        if self.plain:
            return self.plainly(messages) + (f"\n{_NAMES['assistant']}:" if answer else "")
        from jinja2 import TemplateError

        given: list[Message] = [{**message, "content": ""} if message.get("content") is None else message for message in messages]
        tools: Any = self.tools
        try:
            text = str(self.tokenizer.apply_chat_template(given, tools=tools, tokenize=False, add_generation_prompt=answer))
        except (TemplateError, TypeError, ValueError) as error:
            raise InputError(f"the chat template refuses these messages: {' '.join(str(error).split())}") from error
        called = [_name(call) for message in messages for call in message.get("tool_calls") or ()]
        for name in [*called, *(_name(tool) for tool in self.tools or ())]:
            if name not in text:
                raise InputError(f"the chat template leaves out the tool {name!r}; choose a model whose template writes tools")
        return text

    @staticmethod
    def plainly(messages: Sequence[Message]) -> str:
        """Messages as text for any reader."""
        lines = []
        for message in messages:
            content = (message.get("content") or "").strip()
            calls = [json.dumps(call.get("function", call), ensure_ascii=False) for call in message.get("tool_calls") or ()]
            said = "\n".join(part for part in (content, *calls) if part)
            lines.append(f"{said}\n" if message["role"] == "system" else f"{_NAMES[message['role']]}: {said}".rstrip())
        return "\n".join(lines)

    def ids(self, messages: Sequence[Message], *, answer: bool = True) -> list[int]:
        """The prompt as ids, whole however long it is. Raises: as `text`."""
        text = self.text(messages, answer=answer)
        # A template writes the special tokens itself.
        ids: list[int] = self.tokenizer(text, add_special_tokens=self.plain, truncation=False, verbose=False)["input_ids"]
        return ids

    def count(self, messages: Sequence[Message], *, answer: bool = True) -> int:
        """Tokens of the prompt. Raises: as `text`."""
        return len(self.ids(messages, answer=answer))

    def system_tokens(self, system: Sequence[Message]) -> int:
        """Tokens before the first turn: the system prompt (one that the template brings, too) and what begins the text."""
        user, assistant = {"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}
        one = self.count([*system, user], answer=False)
        both = self.count([*system, user, assistant], answer=False)
        more = self.count([*system, user, assistant, user], answer=False)
        return one - (more - both)

    def by_message(self, system: Sequence[Message], turn: Turn, tokens: int) -> list[int]:
        """How the `tokens` of a turn are divided among its messages; what the template says only once counts for the first."""
        counts = [self.count([*system, *turn[: end + 1]], answer=False) for end in range(len(turn))]
        later = [max(0, after - before) for before, after in pairwise(counts)]
        return [max(0, tokens - sum(later)), *later]

    def by_turn(self, system: Sequence[Message], turns: Sequence[Turn]) -> list[int]:
        """Tokens of each turn: what the prompt has less without it and those before it. The system's are in none."""
        counts = [self.count([*system, *joined(turns[begin:])], answer=False) for begin in range(len(turns))]
        return [before - after for before, after in zip(counts, [*counts[1:], self.system_tokens(system)], strict=False)]


def summary_request(turns: Sequence[Turn], before: str) -> list[Message]:
    """What asks a model for a summary of turns. Args: before: the summary of what was said before them; "" where nothing was."""
    known = f"What was said before that: {before}\n\n" if before else ""
    return [{"role": "user", "content": f"{_SUMMARISE}{known}{Prompts.plainly(joined(turns))}"}]


def _name(call: dict[str, Any]) -> str:
    """The name of the tool that a call or an offer is of."""
    return str((call.get("function") or call).get("name", ""))

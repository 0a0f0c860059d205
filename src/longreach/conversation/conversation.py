"""A conversation with a model: every answer says what it was written without, and what was read anew for it."""

import copy
import warnings
import weakref
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.conversation.answer import Answer, spoken
from longreach.conversation.held import HeldText
from longreach.conversation.messages import Message, Turn, check_messages, split
from longreach.conversation.overflow.base import Condensed, Excerpt, OverflowPolicy, Room, Talk, overflow_of
from longreach.conversation.prompt import Prompts, summary_request
from longreach.conversation.reply import Omitted, Reply, Stop
from longreach.conversation.window import stack_for, window_for
from longreach.core.errors import InputError, LongreachError
from longreach.core.method import Method
from longreach.core.progress import SILENT, Progress
from longreach.core.spec import stack_of
from longreach.decoding.generation import text, tokens
from longreach.decoding.reading import CHUNK, check_eval
from longreach.decoding.sampling import GREEDY, Sampling
from longreach.engine.apply import applied, apply, given_model

RESERVE = 256  # tokens kept free for an answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """A message of the conversation. Args: tokens: that it has in the prompt, or had. seen: whether the next prompt begins with it."""

    turn: int
    role: str
    tokens: int
    seen: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """An answer that is to be written. Args: messages: the conversation with the new ones. full: why no more than `most` tokens."""

    messages: list[Message]
    excerpt: Excerpt
    known: dict[int, tuple[Omitted, ...]]
    ids: list[int]
    most: int
    full: Stop


class Conversation:
    """Many turns with a model. What does not fit into its window is dealt with by a policy, and each `Reply` has a receipt of that.

    Of each prompt only what the cache does not hold is read. Where methods are involved, the model is under them from now until
    `close`, the end of a `with` block, or the end of the conversation's life.

    Args: method: to work under, where nothing is applied to the model yet. overflow: what happens to a conversation that is too long:
    `whole_turns`, `refuse`, `summarise`, `sinks` or `infllm` (conversation/overflow). window: tokens of prompt and answer together;
    default: what the model or the method reaches. reserve: of these, tokens that are kept free for the answer. system: the system prompt.
    messages: the conversation so far. tools: that the model may call, as its chat template takes them. chunk_size: tokens read at a time.

    Raises: InputError for a model or a tokenizer that cannot converse, and lengths that leave no room; SpecError; UnsupportedError for a
    method that does not work here. Warns: for a window beyond what the model or the method reaches.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        method: str | Method | Iterable[str | Method] | None = None,
        overflow: str | OverflowPolicy = "whole_turns",
        window: int | None = None,
        reserve: int = RESERVE,
        system: str | None = None,
        messages: Sequence[Message] = (),
        tools: Sequence[dict[str, Any]] | None = None,
        chunk_size: int = CHUNK,
    ) -> None:
        self.model: PreTrainedModel = given_model(model)
        self.policy = overflow_of(overflow)
        check_eval(self.model)
        for name, number in (("window", window), ("reserve", reserve), ("chunk_size", chunk_size)):
            if number is not None and (number < 1 or number != int(number)):
                raise InputError(f"{name}={number} must be a whole number, at least 1")
        if self.model.config.is_encoder_decoder:
            raise InputError(f"{type(self.model).__name__} is an encoder-decoder, and a conversation needs a causal language model")
        begin = [] if system is None else [{"role": "system", "content": system}]
        self._messages = check_messages([*begin, *messages])
        self._prompts, self._chunk_size = Prompts(tokenizer, tools), chunk_size
        self._name = self.model.name_or_path or type(self.model).__name__
        self._condensed: Condensed | None = None
        self._known: dict[int, tuple[Omitted, ...]] = {}
        self._first = 0  # turns that the last prompt lacked
        self._open: weakref.ref[Answer] | None = None
        stack = stack_for(self.model, method, window)
        window, concerns = window_for(self.model, self._name, stack, window)
        self.room = Room(window=window, reserve=reserve)
        self._check_room()
        for concern in concerns:
            warnings.warn(concern, stacklevel=2)
        undo = ExitStack()
        more = self.policy.methods(self.room, self._system_tokens())
        undo.enter_context(apply(self.model, [*stack, *more], tokenizer=tokenizer, warn=False))
        self._finalizer = weakref.finalize(self, undo.close)
        self._finalizer.atexit = False
        self._under = applied(self.model)
        self._held = HeldText(self.model, stack_of(self._under), window=window, chunk_size=chunk_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave what is applied to the model. The messages stay."""
        self._finalizer()

    @property
    def messages(self) -> list[Message]:
        """The whole conversation, a copy: also what is no longer in the prompt."""
        return copy.deepcopy(self._messages)

    @property
    def plain(self) -> bool:
        """Whether the tokenizer has no chat template, so that a plain one is used."""
        return self._prompts.plain

    def add(self, messages: Message | Sequence[Message]) -> None:
        """Add messages without asking for an answer. Raises: InputError for such as make up no conversation."""
        self._check_free()
        self._messages = check_messages([*self._messages, *([messages] if isinstance(messages, dict) else messages)])

    def say(
        self,
        said: str | Message | Sequence[Message],
        *,
        role: str = "user",
        sampling: Sampling = GREEDY,
        max_new_tokens: int | None = None,
        progress: Progress = SILENT,
    ) -> Reply:
        """The model's answer, once it is whole. Args and errors: those of `stream`."""
        answer = self.stream(said, role=role, sampling=sampling, max_new_tokens=max_new_tokens, progress=progress)
        for _ in answer:
            pass
        return answer.reply

    def stream(
        self,
        said: str | Message | Sequence[Message],
        *,
        role: str = "user",
        sampling: Sampling = GREEDY,
        max_new_tokens: int | None = None,
        progress: Progress = SILENT,
    ) -> Answer:
        """The model's answer in pieces of text; when they have ended, or `.close()` was called, its `.reply` has the rest.

        Message and answer become part of the conversation when the answer ends, or where it is closed, as far as it was written; one of
        which nothing was written leaves the conversation as it was, and so does an error.

        Args: said: the message; or messages, as a call of the assistant's with the tools' results. role: of a text, `user` or `tool`.
        sampling: how tokens are chosen. max_new_tokens: default: what the window leaves, where something is left out once it is full, and
        `reserve` at least. progress: is told of the reading.

        Raises: InputError for an empty message, and for one that does not fit; LongreachError for logits that are not finite, or while
        another answer is being written.
        """
        self._check_free()
        if max_new_tokens is not None and (max_new_tokens < 1 or max_new_tokens != int(max_new_tokens)):
            raise InputError(f"max_new_tokens={max_new_tokens} must be a whole number, at least 1")
        new: list[Any] = [{"role": role, "content": said}] if isinstance(said, str) else [said] if isinstance(said, dict) else list(said)
        messages = check_messages([*self._messages, *new])
        if not new or messages[-1]["role"] not in ("user", "tool"):
            raise InputError("an answer needs a message of the user's, or the result of a tool")
        talk = self._talk(messages, progress)
        excerpt = self.policy.fit(talk)
        ids = self._prompts.ids(excerpt.messages)
        most, full = self._most(len(ids), max_new_tokens)
        plan = _Plan(messages=messages, excerpt=excerpt, known=talk.known, ids=ids, most=most, full=full)
        replies: list[Reply] = []
        answer = Answer(self._written(replies, plan, sampling, progress), replies)
        self._open = weakref.ref(answer)
        return answer

    def counts(self) -> list[Counted]:
        """The messages with their tokens, those of the system prompt as turn 0, and whether they were in the last prompt."""
        system, turns = split(self._messages)
        found = [Counted(turn=0, role="system", tokens=self._system_tokens(), seen=True)]
        if self._condensed is not None and self._condensed.turns == self._first:
            found.append(Counted(turn=0, role="summary", tokens=self._condensed.tokens, seen=True))
        left = self._talk(self._messages).left_out(self._first)
        found += [Counted(turn=each.turn, role=each.role, tokens=each.tokens, seen=False) for each in left]
        kept = turns[self._first :]
        for place, (turn, total) in enumerate(zip(kept, self._prompts.by_turn(system, kept), strict=True), self._first + 1):
            parts = self._prompts.by_message(system, turn, total)
            found += [Counted(turn=place, role=each["role"], tokens=part, seen=True) for each, part in zip(turn, parts, strict=True)]
        return found

    def _written(self, replies: list[Reply], plan: _Plan, sampling: Sampling, progress: Progress) -> Generator[str, None, None]:
        """The pieces; where they end, the conversation goes on from there, and the reply is added to `replies`."""
        numbers: list[int] = []
        pieces: list[str] = []
        full = False

        def noted() -> Iterator[int]:
            nonlocal full
            for number in self._held.tokens(plan.ids, max_new_tokens=plan.most, sampling=sampling, progress=progress):
                numbers.append(number)
                yield number
            full = len(numbers) == plan.most

        try:
            for piece in spoken(text(noted(), self._prompts.tokenizer), self._prompts.stops):
                pieces.append(piece)
                yield piece
        except (GeneratorExit, KeyboardInterrupt):
            if pieces:
                replies.append(self._ended(plan, "".join(pieces), len(numbers), "cancelled"))
            raise
        replies.append(self._ended(plan, "".join(pieces), len(numbers), plan.full if full else "end"))

    def _ended(self, plan: _Plan, content: str, written: int, stopped: Stop) -> Reply:
        """Take message and answer into the conversation."""
        self._messages = [*plan.messages, {"role": "assistant", "content": content}]
        self._first, self._condensed, self._known = plan.excerpt.first, plan.excerpt.condensed, plan.known
        reused, anew, total = self._held.reused, self._held.anew, len(plan.ids) + written
        receipt = replace(plan.excerpt.receipt, kept=total, seen=self.policy.sight(self.room, total))
        return Reply(
            text=content, read=len(plan.ids) - reused, reused=reused, written=written, receipt=receipt, stopped=stopped, anew=anew
        )  # fmt: skip

    def _talk(self, messages: list[Message], progress: Progress = SILENT) -> Talk:
        system, turns = split(messages)
        prompts = self._prompts
        return Talk(
            system=system,
            turns=turns,
            room=self.room,
            count=prompts.count,
            parts=lambda turn, tokens: prompts.by_message(system, turn, tokens),
            system_tokens=self._system_tokens(),
            summarise=lambda turns, before, most: self._summary(turns, before, most, progress),
            condensed=self._condensed,
            known=dict(self._known),
        )

    def _summary(self, turns: Sequence[Turn], before: str, most: int, progress: Progress) -> tuple[str, int] | None:
        """A summary in the model's own words, of `most` tokens at most, and how many it has; None where it does not fit into the window."""
        ids = self._prompts.ids(summary_request(turns, before))
        if self.room.window is not None and len(ids) + most > self.room.window:
            return None
        written = tokens(
            self.model, torch.tensor([ids]), max_new_tokens=most, chunk_size=self._chunk_size, progress=progress,
            whole=self.room.window,
        )  # fmt: skip
        found = "".join(spoken(text(written, self._prompts.tokenizer), self._prompts.stops)).strip()
        return found, len(self._prompts.tokenizer(found, add_special_tokens=False)["input_ids"])

    def _most(self, prompt: int, wanted: int | None) -> tuple[int, Stop]:
        """How many tokens may be written behind a prompt, and why no more."""
        left = None if self.room.window is None else self.room.window - prompt
        if self.policy.keeps_text or left is None:
            return wanted or max(self.room.reserve, left or 0), "limit"
        return (wanted, "limit") if wanted is not None and wanted <= left else (left, "window")

    def _system_tokens(self) -> int:
        return self._prompts.system_tokens(split(self._messages)[0])

    def _check_room(self) -> None:
        """Refuse a window that leaves no room for anything to be said."""
        window, reserve = self.room.window, self.room.reserve
        if window is None:
            return
        if reserve >= window:
            remedy = "keep fewer free (reserve, --max-new-tokens)"
            raise InputError(f"a window of {window} tokens leaves no room beside {reserve} for the answer; {remedy}")
        least = self._prompts.count([*split(self._messages)[0], {"role": "user", "content": "a"}])
        if not self.policy.keeps_text and least > window - reserve:
            raise InputError(
                f"the system prompt and a message of one word have {least} tokens, and a window of {window} leaves {window - reserve} "
                f"beside {reserve} for the answer; shorten the system prompt, or give a larger window (--window)"
            )

    def _check_free(self) -> None:
        """Refuse to go on while an answer is being written, or where the model is under something else by now."""
        answer = None if self._open is None else self._open()
        if answer is not None and not answer.done:
            raise LongreachError("the answer before is still being written; read it to its end, or close it")
        if (now := applied(self.model)) != self._under:
            then, now = (spec or "no method" for spec in (self._under, now))
            raise LongreachError(f"this conversation was begun under {then}, and the model is under {now} by now; begin another one")

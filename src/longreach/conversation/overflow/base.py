"""The contract of overflow policies: what of a conversation goes into the prompt, and what the receipt says of the rest."""

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from longreach.conversation.messages import Message, Turn, joined
from longreach.conversation.reply import Omitted, Receipt
from longreach.core import registry
from longreach.core.errors import InputError
from longreach.core.method import Method, Settings
from longreach.core.spec import make, parse_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """Lengths in tokens. Args: window: that the model reads; None: without end. reserve: kept free for the answer."""

    window: int | None
    reserve: int

    @property
    def prompt(self) -> int | None:
        """The longest prompt; None: without end."""
        return None if self.window is None else self.window - self.reserve


@dataclass(frozen=True, kw_only=True, slots=True)
class Condensed:
    """The first turns of a conversation in other words. Args: turns: how many. text: what stands for them. tokens: of the text."""

    turns: int
    text: str
    tokens: int


@dataclass(kw_only=True)
class Talk:
    """A conversation that has to fit, with the message that is to be answered as the last.

    Args: system: the system prompt. turns: all of them. room: for it. count: messages -> tokens of the prompt that they make.
    parts: turn, its tokens -> those of each message. system_tokens: at the beginning of every prompt. summarise: (turns, what stood for
    turns before them, tokens at most) -> their summary in the model's words, and its tokens; None where they do not fit into the window.
    condensed: what stood for the first turns in the prompt before. known: what is known of turns that were left out before, by their place.
    """

    system: list[Message]
    turns: list[Turn]
    room: Room
    count: Callable[[Sequence[Message]], int]
    parts: Callable[[Turn, int], list[int]]
    system_tokens: int
    summarise: Callable[[Sequence[Turn], str, int], tuple[str, int] | None]
    condensed: Condensed | None = None
    known: dict[int, tuple[Omitted, ...]] = field(default_factory=dict)

    def without(self, first: int) -> list[Message]:
        """The messages without the first turns."""
        return [*self.system, *joined(self.turns[first:])]

    def fits(self, messages: Sequence[Message], room: int | None = None) -> bool:
        """Whether they fit into a room; default: that of prompts."""
        room = self.room.prompt if room is None else room
        return room is None or self.count(messages) <= room

    def fewest(self) -> int:
        """How many of the first turns have to go, so that the others fit. Raises: InputError where the newest does not fit by itself."""
        last = len(self.turns) - 1
        found = bisect_left(range(last + 1), True, key=lambda first: self.fits(self.without(first)))
        if found > last:
            raise InputError(self.refusal(self.count(self.without(last)), "the newest message and the system prompt have", "shorten it"))
        return found

    def left_out(self, first: int) -> tuple[Omitted, ...]:
        """The messages of the first turns, with the tokens by which the prompt is shorter without them."""
        for place in range(first):
            if place not in self.known:
                turn = self.turns[place]
                tokens = self.count(self.without(place)) - self.count(self.without(place + 1))
                counts = zip(turn, self.parts(turn, tokens), strict=True)
                self.known[place] = tuple(Omitted(turn=place + 1, role=each["role"], tokens=part) for each, part in counts)
        return tuple(each for place in range(first) for each in self.known[place])

    def refusal(self, tokens: int, what: str, remedy: str) -> str:
        """What is said of a prompt that does not fit. Args: what: has so many tokens."""
        room, (window, reserve) = self.room.prompt or 0, (self.room.window, self.room.reserve)
        return (
            f"{what} {tokens} tokens, {tokens - room} too many for the {room} that a window of {window} leaves beside {reserve} for the "
            f"answer; {remedy}, give a larger window (--window), or a method that reaches farther (--method)"
        )


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """What goes into the prompt. Args: messages: of it. first: turns that are left out. condensed: what stands for them, from now on."""

    messages: list[Message]
    receipt: Receipt
    first: int = 0
    condensed: Condensed | None = None


@dataclass(frozen=True, kw_only=True)
class OverflowPolicy(Settings):
    """What happens to a conversation that is longer than its room.

    keeps_text: the prompt is always the whole conversation.
    """

    kind: ClassVar[str] = "overflow"
    keeps_text: ClassVar[bool] = False

    def methods(self, room: Room, system_tokens: int) -> tuple[Method, ...]:
        """What the model is under for the whole of the conversation, behind what the user asks for.

        Raises: InputError for a room that it cannot work in.
        """
        return ()

    def sight(self, room: Room, tokens: int) -> int:
        """How many of the tokens in the cache the last one sees (where each finds some: at most)."""
        return tokens

    @abstractmethod
    def fit(self, talk: Talk) -> Excerpt:
        """The prompt. Raises: InputError where it cannot be made to fit."""


def overflow_of(policy: str | OverflowPolicy) -> OverflowPolicy:
    """A policy from its spec, as `whole_turns` or `summarise:max_tokens=64`. Raises: SpecError."""
    if isinstance(policy, OverflowPolicy):
        return policy
    name, settings = parse_settings(policy)
    found: type[OverflowPolicy] = registry.module(name, "overflow").OVERFLOW
    return make(found, settings)

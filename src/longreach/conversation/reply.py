"""What a conversation says of an answer: its text, what it cost, and what of the conversation the model did not see."""

from dataclasses import dataclass
from typing import Literal

Stop = Literal["end", "limit", "window", "cancelled"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Omitted:
    """A message that is not in the prompt. Args: turn: from 1. tokens: that it had there; a turn's first message has its markup, too."""

    turn: int
    role: str
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What of a conversation an answer was written without; false where that is nothing.

    Args: policy: the spec of the overflow policy. left_out: messages that the prompt lacks. summary: what stands there for them.
    summary_tokens: of it. system_tokens: at the beginning of the prompt, which always stay. kept: tokens of prompt and answer. seen: how
    many of them the last one sees (where each token finds some: at most). forgotten: whether the others are gone. note: why the policy
    was left for another one.
    """

    policy: str
    left_out: tuple[Omitted, ...] = ()
    summary: str | None = None
    summary_tokens: int = 0
    system_tokens: int = 0
    kept: int = 0
    seen: int = 0
    forgotten: bool = False
    note: str = ""

    @property
    def tokens(self) -> int:
        """Tokens that were left out of the prompt."""
        return sum(each.tokens for each in self.left_out)

    @property
    def unseen(self) -> int:
        """Tokens of prompt and answer that the last one does not see."""
        return self.kept - self.seen

    def __bool__(self) -> bool:
        return bool(self.left_out or self.unseen or self.note)

    def __str__(self) -> str:
        """One line."""
        parts = [self.note] if self.note else []
        if self.left_out:
            turns = sorted({each.turn for each in self.left_out})
            which = f"turn {turns[0]}" if len(turns) == 1 else f"turns {turns[0]}-{turns[-1]}"
            instead = "" if self.summary is None else f", for which a summary of {self.summary_tokens} tokens stands"
            parts.append(f"left out: {which} ({self.tokens} tokens){instead}")
            parts.append(f"{self.system_tokens} system tokens kept")
        if self.unseen and self.forgotten:
            parts.append(f"no longer seen: {self.unseen} of {self.kept} tokens; the first and the last are, {self.seen} together")
        elif self.unseen:
            parts.append(f"all {self.kept} tokens are kept; each of them sees up to {self.seen}, those that it finds and the last")
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer.

    Args: text: of it. read, reused: tokens of the prompt that were read now, and that were in the cache. written: tokens. receipt: what the
    model did not see. stopped: by an `end` token (or where the model would have spoken for the user), at the `limit` of tokens, where the
    `window` is full, or by whoever `cancelled` it. anew: why nothing was reused, where a turn before had been read.
    """

    text: str
    read: int
    reused: int
    written: int
    receipt: Receipt
    stopped: Stop
    anew: str = ""

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return self.read + self.reused

"""What the scheduler is asked for, and what it tells while it works."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from longreach.core.errors import LongreachError
from longreach.decoding.sampling import GREEDY, Sampling
from longreach.engine.snapshots import Snapshot
from longreach.serving.profiles import Profile

LATE = "the request was not answered in the time that it may take (--timeout)"


class ServerFullError(LongreachError):
    """More requests wait than the server lets wait; it may be asked again after a while."""


class ServerClosingError(LongreachError):
    """The server is about to end, and begins nothing any more."""


class ServerBusyError(LongreachError):
    """A request that was not answered in the time that it may take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenChoice:
    """A token that was written, with natural log-probabilities before sampling changes them. Args: top: (id, logprob), likeliest first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingMoved:
    """Of a prompt, `done` of `total` tokens are read. Args: stage: `waiting` or `reading`."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRead:
    """The prompt is read, and writing begins. Args: reused: tokens of it that another request had read."""

    reused: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PieceWritten:
    """Text of a choice. Args: chosen: the tokens that it was made of, where their log-probabilities were asked for."""

    choice: int
    text: str
    chosen: tuple[TokenChoice, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceEnded:
    """A choice is whole. Args: reason: `stop` or `length`. written: tokens."""

    choice: int
    reason: str
    written: int


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFailed:
    """Nothing more comes. Args: error: a LongreachError is what the client is told; any other is an error of the server's."""

    error: Exception


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinkingBudget:
    """How long a model may think before it answers. Args: tokens: of thoughts (>= 0). begin, end: ids of the marks around them. begun:
    whether the prompt ends within thoughts.
    """

    tokens: int
    begin: int | None
    end: int
    begun: bool


JobEvent = ReadingMoved | PromptRead | PieceWritten | ChoiceEnded | JobFailed


@dataclass(kw_only=True, eq=False)
class Job:
    """A prompt to be read, and what is to be written behind it.

    Args: ids: of the prompt, at least one. profile: to work under. most: tokens of each choice (>= 1). least: tokens before which no end
    token is chosen. sampling: of the first choice; with a seed, each further one has the next seed. stops: texts before which writing ends.
    strips: whether white space before the answer is left out. choices: answers that are written (>= 1). logprobs: how many alternatives
    of each token are told; None: no log-probabilities. thinking: where it is used up, the mark that ends thoughts is written. deadline: in
    seconds of `time.monotonic`. begun: what a cache held that had read the beginning of the prompt. whole: tokens of the text for which
    frequencies that hang on its length are chosen; None: the prompt and `most`. sink: takes what there is to tell, in the scheduler's
    thread; it must not wait.
    """

    ids: tuple[int, ...]
    profile: Profile
    most: int
    sink: Callable[[JobEvent], None]
    least: int = 0
    sampling: Sampling = GREEDY
    stops: tuple[str, ...] = ()
    strips: bool = False
    choices: int = 1
    logprobs: int | None = None
    thinking: ThinkingBudget | None = None
    deadline: float | None = None
    begun: Snapshot | None = None
    whole: int | None = None
    _cancelled: threading.Event = field(default_factory=threading.Event, init=False, repr=False)

    @property
    def tokens(self) -> int:
        """That its caches may come to hold."""
        return self.choices * (len(self.ids) + self.most)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Nobody waits for it any more: before its next step it is dropped with its caches."""
        self._cancelled.set()

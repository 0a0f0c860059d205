"""What a run may cost, what it is told to cost at most beforehand, and what it did cost."""

import threading
from dataclasses import dataclass

from longreach.core.errors import InputError, LongreachError


class BudgetError(LongreachError):
    """A run that would go beyond its budget with the next call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Args: calls: of the model. read, written: tokens of the prompts, and of the answers."""

    calls: int = 0
    read: int = 0
    written: int = 0

    @property
    def tokens(self) -> int:
        """Read and written together."""
        return self.read + self.written

    def __str__(self) -> str:
        """In words."""
        return f"{self.calls:,} call{'s' * (self.calls != 1)}, {self.read:,} tokens read and {self.written:,} written"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunBudget:
    """The most that a run may cost; None: no limit. Args: calls: of the model. tokens: read and written together.

    Raises: InputError for a limit below 1.
    """

    calls: int | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        for name, limit in (("calls", self.calls), ("tokens", self.tokens)):
            if limit is not None and limit < 1:
                raise InputError(f"a budget of {limit} {name} must be at least 1")

    def covers(self, cost: Cost) -> bool:
        """Whether so much is allowed."""
        return (self.calls is None or cost.calls <= self.calls) and (self.tokens is None or cost.tokens <= self.tokens)

    def __str__(self) -> str:
        """In words."""
        parts = [f"{limit:,} {name}" for name, limit in (("calls", self.calls), ("tokens", self.tokens)) if limit is not None]
        return " and ".join(parts) or "no limit"


class Meter:
    """Keeps a run within its budget. Threads may share it: what is asked for counts at once, at the most that it may cost."""

    def __init__(self, budget: RunBudget) -> None:
        self.budget = budget
        self._lock = threading.Lock()
        self._spent = Cost()

    @property
    def spent(self) -> Cost:
        """So far, with what is under way."""
        return self._spent

    def reserve(self, read: int, written: int) -> None:
        """Take what a call may cost. Raises: BudgetError where that is too much; then nothing is taken."""
        with self._lock:
            would = Cost(calls=self._spent.calls + 1, read=self._spent.read + read, written=self._spent.written + written)
            if not self.budget.covers(would):
                raise BudgetError(
                    f"the budget of {self.budget} ends here: {self._spent}, and the next call takes up to {read + written:,} tokens; "
                    "give a larger one"
                )
            self._spent = would

    def settle(self, reserved: tuple[int, int], took: tuple[int, int]) -> None:
        """Say what a call took after all. Args: (tokens read, tokens written) each."""
        with self._lock:
            self._spent = Cost(
                calls=self._spent.calls,
                read=self._spent.read - reserved[0] + took[0],
                written=self._spent.written - reserved[1] + took[1],
            )

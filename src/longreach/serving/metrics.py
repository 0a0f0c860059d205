"""Counts what a server does, and writes it as Prometheus reads it."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence

_FIRST = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
_STEP = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class _Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self.counts[sum(value > bound for bound in self.bounds)] += 1
        self.sum += value

    def lines(self, name: str) -> list[str]:
        total, found = 0, []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            total += count
            found.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*found, f"{name}_sum {self.sum:.6f}", f"{name}_count {total}"]


class Metrics:
    """What a server counts; any thread may add to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens: Counter[str] = Counter(read=0, reused=0, written=0)
        self._first, self._steps = _Histogram(_FIRST), _Histogram(_STEP)

    def request(self, path: str, status: int) -> None:
        """A request was answered."""
        with self._lock:
            self._requests[path, status] += 1

    def read(self, tokens: int) -> None:
        """Tokens of prompts were read."""
        with self._lock:
            self._tokens["read"] += tokens

    def reused(self, tokens: int) -> None:
        """Tokens of prompts did not have to be read."""
        with self._lock:
            self._tokens["reused"] += tokens

    def wrote(self, tokens: int) -> None:
        """Tokens were written."""
        with self._lock:
            self._tokens["written"] += tokens

    def first(self, seconds: float) -> None:
        """A request got the first piece of its answer after so long."""
        with self._lock:
            self._first.add(seconds)

    def step(self, seconds: float) -> None:
        """A round of the scheduler took so long."""
        with self._lock:
            self._steps.add(seconds)

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """In Prometheus' text format. Args: gauges: name -> (what it is, its value now)."""
        with self._lock:
            parts = [
                _head("longreach_requests_total", "counter", "Requests by path and status."),
                *(
                    f'longreach_requests_total{{path="{path}",status="{status}"}} {n}'
                    for (path, status), n in sorted(self._requests.items())
                ),
                _head("longreach_tokens_total", "counter", "Tokens of prompts read and reused, and tokens written."),
                *(f'longreach_tokens_total{{kind="{kind}"}} {count}' for kind, count in self._tokens.items()),
                _head("longreach_time_to_first_token_seconds", "histogram", "From a request to the first piece of its answer."),
                *self._first.lines("longreach_time_to_first_token_seconds"),
                _head("longreach_step_seconds", "histogram", "A round of the scheduler."),
                *self._steps.lines("longreach_step_seconds"),
            ]
        for name, (what, value) in gauges.items():
            parts += [_head(f"longreach_{name}", "gauge", what), f"longreach_{name} {value:g}"]
        return "\n".join(parts) + "\n"


def _head(name: str, kind: str, what: str) -> str:
    return f"# HELP {name} {what}\n# TYPE {name} {kind}"

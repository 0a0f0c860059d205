"""Results are rows: one JSON object a line, appended atomically, so that nothing is measured twice and a stopped run goes on."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from longreach.core.lines import append_lines, read_lines

_IDENTITY = ("task", "model", "method", "length", "depth", "seed", "version", "settings")
_ADDED: dict[str, Any] = {"answer": None, "failed": ""}  # fields that not every row has, and what they are without
_BEGINNING = b'{"task": '  # of every line


@dataclass(frozen=True, kw_only=True)
class Row:
    """One result, or, while `score` is None, one that is still to be measured.

    Args: task, method: specs (method "" is the stock model). model: its name. length: tokens. depth: where the fact stands, 0 to 1.
    seed: None where nothing is random. version: of longreach. settings: all else that determines the score, plain JSON values.
    score: nats a token (loss) or share of right answers. n: what `score` is the mean of. low, high: 95 % confidence interval.
    tokens_per_s: tokens read and written a second, over the batch. peak_bytes: memory that the batch needed beside the model. answer: what
    was answered, where that is text. failed: why there was no answer; such a row has no score, and is measured again.
    """

    task: str
    model: str
    method: str
    length: int
    depth: float | None = None
    seed: int | None = None
    version: str
    settings: Mapping[str, Any]
    score: float | None = None
    n: int = 1
    low: float | None = None
    high: float | None = None
    tokens_per_s: float | None = None
    peak_bytes: int | None = None
    answer: str | None = None
    failed: str = ""

    @property
    def identity(self) -> str:
        """Everything that determines the score, as one string."""
        return json.dumps([getattr(self, name) for name in _IDENTITY], sort_keys=True)

    def to_json(self) -> str:
        """One line without its end; what only some rows have is left out of the others."""
        values = asdict(self)
        return json.dumps({name: value for name, value in values.items() if name not in _ADDED or value != _ADDED[name]}, allow_nan=False)


class Rows:
    """Rows on disk, found by identity. Without a path they live in memory only.

    Args: path: the JSON Lines file; made, with its folder, at the first append.
    Raises: InputError for a file that is not made of rows. A last line torn by a kill is taken off the file; `healed` says so.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.healed = False
        self._rows: dict[str, Row] = {}
        if path is not None and path.exists():
            rows, self.healed = read_lines(path, _parse, "row", _BEGINNING)
            self._keep(rows)

    @classmethod
    def of(cls, rows: "Rows | str | Path | None") -> "Rows":
        """The rows meant: themselves, those of a file, or, for None, none so far, in memory only. Raises: as above."""
        return rows if isinstance(rows, Rows) else cls(None if rows is None else Path(rows))

    def get(self, row: Row) -> Row | None:
        """The measured row of the same identity, if there is one."""
        found = self._rows.get(row.identity)
        return None if found is None or found.failed else found

    def append(self, rows: Iterable[Row]) -> None:
        """Keep measured rows, on disk before in memory.

        Raises: InputError where the file cannot be written.
        """
        rows = list(rows)
        if self.path is not None and rows:
            append_lines(self.path, [row.to_json() for row in rows], "row")
        self._keep(rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def _keep(self, rows: Iterable[Row]) -> None:
        """The first that has a score counts."""
        for row in rows:
            if self._rows.get(row.identity, row).failed or row.identity not in self._rows:
                self._rows[row.identity] = row


def _parse(line: bytes) -> Row | None:
    """None for what is not a row."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    names = {field.name for field in fields(Row)}
    whole = isinstance(values, dict) and names - _ADDED.keys() <= set(values) <= names
    return Row(**values) if whole else None


def task_name(task: str) -> str:
    """What people call a task: `needle` for `needle:shared=true`, which says how it is asked and not what.

    >>> task_name("needle:shared=true"), task_name("passkey:digits=7,shared=true"), task_name("loss_inside:window_size=512")
    ('needle', 'passkey:digits=7', 'loss_inside:window_size=512')
    """
    name, _, settings = task.partition(":")
    return ":".join([name, *([kept] if (kept := ",".join(part for part in settings.split(",") if part != "shared=true")) else [])])


def by_text(rows: Iterable[Row]) -> dict[str, float]:
    """text -> mean loss over all its tokens, for pairing what was measured on the same texts."""
    sums: dict[str, tuple[float, int]] = {}
    for row in rows:
        total, n = sums.get(row.settings["text"], (0.0, 0))
        sums[row.settings["text"]] = (total + (row.score or 0.0) * row.n, n + row.n)
    return {text: total / n for text, (total, n) in sums.items()}


def by_block(rows: Iterable[Row]) -> dict[tuple[str, int], float]:
    """(text, first token) -> mean loss of a block, for pairing what was measured on the same tokens."""
    return {(row.settings["text"], row.settings["span"][0]): row.score or 0.0 for row in rows}

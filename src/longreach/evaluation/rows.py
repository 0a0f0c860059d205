"""Results are rows: one JSON object a line, appended atomically, so that nothing is measured twice and a stopped run goes on."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from longreach.core.errors import InputError

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
            self._read(path)

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
            self._write(self.path, "".join(f"{row.to_json()}\n" for row in rows).encode())
        for row in rows:
            self._take(row)

    def _take(self, row: Row) -> None:
        """The first that has a score counts."""
        if self._rows.get(row.identity, row).failed or row.identity not in self._rows:
            self._rows[row.identity] = row

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                while data:  # one write, but for a full disk or a signal
                    data = data[os.write(descriptor, data) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise InputError(f"cannot write rows to {path}: {error.strerror}") from error

    def _read(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read rows from {path}: {error.strerror}") from error
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            if (row := _parse(line)) is None:
                raise InputError(f"{path}: line {number} is not a row; mend the file or name another")
            self._take(row)
        if torn := data[whole:]:
            self._heal(path, torn, whole)

    def _heal(self, path: Path, torn: bytes, whole: int) -> None:
        """Take an unfinished last line off the file, which keeps `whole` bytes; only its end of line may be missing."""
        if (row := _parse(torn)) is not None:
            self._write(path, b"\n")
            self._take(row)
        elif _BEGINNING.startswith(torn[: len(_BEGINNING)]):
            os.truncate(path, whole)
            self.healed = True
        else:
            raise InputError(f"{path}: its last line is not a row; mend the file or name another")


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

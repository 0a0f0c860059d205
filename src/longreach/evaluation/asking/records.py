"""Files of other people's benchmarks: JSON Lines, read as they are."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from longreach.core.errors import InputError


class Datum(NamedTuple):
    """One object of a file. Args: source: the file's name without its folder and endings. place: file and line, for messages."""

    source: str
    place: str
    values: Mapping[str, Any]


class Records:
    """A setting: a JSON Lines file, or a folder with such files at any depth. Equal are those of one path.

    Raises: InputError where there is no such thing.
    """

    __slots__ = ("path",)

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        if not _files(self.path):
            raise InputError(f"{self.path} is no JSON Lines file, and no folder with one (*.jsonl)")

    def all(self) -> tuple[Datum, ...]:
        """Every object, by file name and line. Raises: InputError for a line that is no JSON object."""
        return _read(self.path, tuple((file, file.stat().st_mtime_ns) for file in _files(self.path)))

    def __str__(self) -> str:
        return self.path

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Records) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)


def of_values(source: str, values: list[dict[str, Any]]) -> tuple[Datum, ...]:
    """Records that no file holds."""
    return tuple(Datum(source, f"{source}:{number}", one) for number, one in enumerate(values, start=1))


def digest(value: Any) -> str:
    """Eight digits that stand for a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _files(path: str) -> list[Path]:
    place = Path(path).expanduser()
    return sorted(place.rglob("*.jsonl")) if place.is_dir() else [place] if place.is_file() else []


@cache
def _read(path: str, stamps: tuple[tuple[Path, int], ...]) -> tuple[Datum, ...]:
    return tuple(record for file, _ in stamps for record in _lines(file))


def _lines(file: Path) -> Iterator[Datum]:
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    values = json.loads(line)
                    if not isinstance(values, dict):
                        raise InputError(f"{file}:{number} is no JSON object")
                    yield Datum(file.name.partition(".")[0], f"{file}:{number}", values)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}:{number} is no JSON: {error.msg}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None

"""Reads the files of a folder as texts: plain text, JSON, JSON Lines and CSV by hand, Parquet and Arrow by `datasets`."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreach.core.errors import InputError

TEXT_FIELD = "text"


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of a folder.

    Args: names: files, relative to it, with the number of the record where a file holds several. skipped: files that were not read, and
    why. records: how many of the texts are records of `files` many files. empty: records that hold no text. field:
    of records.
    """

    names: tuple[str, ...]
    contents: tuple[str, ...]
    skipped: tuple[str, ...]
    records: int = 0
    files: int = 0
    empty: int = 0
    field: str = TEXT_FIELD

    @property
    def told(self) -> str:
        """What was read and what was not, in a sentence."""
        plain = len(self.names) - self.records
        parts = [_counted(plain, "text file")] if plain or not self.records else []
        if self.records:
            parts.append(f"{_counted(self.records, 'record')} of {_counted(self.files, 'file')}, by their field {self.field!r}")
        told = f"Read {' and '.join(parts)}."
        if self.empty:
            told += f" Left out {_counted(self.empty, 'record')} without text."
        if self.skipped:
            more = f", and {len(self.skipped) - 3} more" if len(self.skipped) > 3 else ""
            told += f" Not read: {_counted(len(self.skipped), 'file')} ({'; '.join(self.skipped[:3])}{more})."
        return told


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


class _NotRead(Exception):  # noqa: N818 - not an error: the file is left out, and it is said why
    """A file that holds no text that can be read. The message says why."""


def read_folder(folder: Path, field: str = TEXT_FIELD) -> Texts:
    """Every text below a folder, in the order of the files' names; hidden files are no part of it.

    Files of records (.json, .jsonl, .ndjson, .csv, .parquet, .arrow) give the texts in the field `field` of each record; all others are
    text, whatever their ending, if they are UTF-8.
    Raises: InputError where it is no folder, or holds no text.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give a folder of texts")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink()]
    found: dict[str, str] = {}
    skipped: list[str] = []
    records = of = empty = 0
    for path in files:
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts) or path.is_dir():
            continue
        try:
            reader = _READERS.get(path.suffix.lower())
            if reader is None:
                found[str(name)] = _text(path)
                continue
            texts = [value if isinstance(value, str) else "" for value in reader(path, field)]
            good = {f"{name}#{number}": text for number, text in enumerate(texts) if text.strip()}
            if not good:
                raise _NotRead(f"has no text in the field {field!r}")
            found |= good
            records, of, empty = records + len(good), of + 1, empty + len(texts) - len(good)
        except _NotRead as reason:
            skipped.append(f"{name} {reason}")
    if not found:
        why = f": {'; '.join(skipped[:3])}" if skipped else ", and no file"
        raise InputError(f"{folder} holds no text{why}; give a folder of texts, or the field of its records with --text-field")
    return Texts(
        names=tuple(found), contents=tuple(found.values()), skipped=tuple(skipped), records=records, files=of, empty=empty, field=field
    )


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise _NotRead("is no UTF-8 text") from None
    except FileNotFoundError:
        raise _NotRead("leads nowhere") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if "\0" in text:
        raise _NotRead("is no text")
    if not text.strip():
        raise _NotRead("is empty")
    return text.removeprefix("\ufeff")


def _json_lines(path: Path, field: str) -> Iterator[Any]:
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip():
            yield _field(_parsed(line, f"line {number}"), field)


def _json(path: Path, field: str) -> Iterator[Any]:
    whole = _parsed(_text(path), "it")
    yield from (_field(record, field) for record in (whole if isinstance(whole, list) else [whole]))


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise _NotRead(f"is damaged: {what} is not JSON") from None


def _field(record: Any, field: str) -> Any:
    return record.get(field) if isinstance(record, dict) else None


def _csv(path: Path, field: str) -> Iterator[Any]:
    csv.field_size_limit(1 << 30)  # a field may be a book
    try:
        yield from (record.get(field) for record in csv.DictReader(io.StringIO(_text(path), newline="")))
    except csv.Error as error:
        raise _NotRead(f"is damaged: {error}") from None


def _by_datasets(path: Path, field: str) -> Iterable[Any]:
    try:
        import datasets  # type: ignore[import-not-found]
    except ImportError:
        raise _NotRead("needs the extra longreach[data]") from None
    kind = path.suffix.lower().removeprefix(".")
    try:
        loaded = datasets.load_dataset(kind, data_files=str(path), split="train", streaming=True)
        return [record.get(field) for record in loaded]
    except Exception as error:  # datasets raises what its readers raise
        raise _NotRead(f"cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


_READERS: dict[str, Callable[[Path, str], Iterable[Any]]] = {
    ".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _by_datasets, ".arrow": _by_datasets,
}  # fmt: skip

"""Questions over several documents from a file of MuSiQue."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from longreach.core.errors import InputError


class Paragraph(NamedTuple):
    """One document of a question. Args: depth: of its middle among all of them, 0 to 1."""

    depth: float
    title: str
    text: str
    supporting: bool


class MultiHop(NamedTuple):
    """A question, all that counts as its answer (the first is the one to give), and its documents in order."""

    question: str
    answers: tuple[str, ...]
    paragraphs: tuple[Paragraph, ...]


def multi_hop(path: Path) -> tuple[MultiHop, ...]:
    """The answerable questions of JSON Lines with `question`, `answer` and `paragraphs`.

    Raises: InputError for other lines, and where there is no question.
    """
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read(path: Path, changed: int) -> tuple[MultiHop, ...]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row: Any = json.loads(line)
            if row.get("answerable", True):
                found.append(_question(row))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f'{path}, line {number}: each line has to be a JSON object with "question", "answer" and "paragraphs", as those of MuSiQue'
            ) from None
    if not found:
        raise InputError(f"{path} has no questions")
    return tuple(found)


def _question(row: Any) -> MultiHop:
    listed = row["paragraphs"]
    paragraphs = tuple(
        Paragraph((place + 0.5) / len(listed), str(one["title"]), str(one["paragraph_text"]), bool(one["is_supporting"]))
        for place, one in enumerate(listed)
    )
    return MultiHop(str(row["question"]), (str(row["answer"]), *map(str, row.get("answer_aliases", ()))), paragraphs)

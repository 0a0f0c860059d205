"""Functions of real Python source, and one of them with an error that was put into it."""

import ast
import builtins
import keyword
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from longreach.core.errors import InputError
from longreach.data.stdlib import stdlib_files

LINES = range(4, 21)  # of a function that is taken


class Function(NamedTuple):
    """A function by itself. Args: text: without indentation, and without an end of line."""

    name: str
    text: str


class Sources:
    """A setting: a Python file, or a folder with such files at any depth. Equal are those of one path.

    Raises: InputError where there is no such thing.
    """

    __slots__ = ("path",)

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        if not self.files():
            raise InputError(f"{self.path} is no Python file, and no folder with one (*.py)")

    def files(self) -> list[Path]:
        """The files, in a fixed order."""
        place = Path(self.path).expanduser()
        return sorted(place.rglob("*.py")) if place.is_dir() else [place] if place.is_file() else []

    def __str__(self) -> str:
        return self.path

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sources) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)


def functions(sources: Sources | None) -> tuple[Function, ...]:
    """Functions of different names that compile by themselves (default: those of the standard library's held-out modules).

    Raises: InputError where they are fewer than 50.
    """
    files = stdlib_files("held-out") if sources is None else sources.files()
    found = _functions(tuple((file, file.stat().st_mtime_ns) for file in files))
    if len(found) < 50:
        raise InputError(f"{sources} has {len(found)} functions of {LINES.start} to {LINES[-1]} lines, and 50 are needed; give more source")
    return found


@cache
def _functions(stamps: tuple[tuple[Path, int], ...]) -> tuple[Function, ...]:
    found: dict[str, Function] = {}
    for file, _ in stamps:
        for function in _of(file.read_text(encoding="utf-8", errors="replace")):
            found.setdefault(function.name, function)
    return tuple(found.values())


def _of(source: str) -> Iterator[Function]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    lines = source.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("__") and (node.end_lineno or 0) - node.lineno + 1 in LINES:
            text = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
            if _compiles(text):
                yield Function(node.name, text)


def with_error(function: Function, rng: np.random.Generator) -> Function | None:
    """The function with a name in it that is nowhere defined, or an attribute of None; None where nothing can be made wrong.

    It compiles, and fails wherever that place is run.
    """
    tree = ast.parse(function.text)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    own = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)} | {
        node.id for node in names if isinstance(node.ctx, ast.Store)
    }
    read = [node for node in names if isinstance(node.ctx, ast.Load) and node.id in own and node.lineno > 1]
    owners = [node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)]
    ways = [
        nodes for nodes in ([node for node in read if len(node.id) > 3], [node for node in read if node in owners]) if nodes
    ]  # fmt: skip
    if not ways:
        return None
    nodes = ways[int(rng.integers(len(ways)))]
    node = nodes[int(rng.integers(len(nodes)))]
    new = _misspelt(node.id, rng) if nodes is ways[0] and len(node.id) > 3 else "None"
    if new != "None" and (new in own or new in {node.id for node in names} or new in vars(builtins) or keyword.iskeyword(new)):
        return None
    lines = [line.encode() for line in function.text.split("\n")]  # places are bytes of lines
    line = lines[node.lineno - 1]
    lines[node.lineno - 1] = line[: node.col_offset] + new.encode() + line[node.col_offset + len(node.id.encode()) :]
    text = b"\n".join(lines).decode()
    return Function(function.name, text) if _compiles(text) else None


def _misspelt(name: str, rng: np.random.Generator) -> str:
    """Two letters that follow each other in the wrong order."""
    places = [place for place in range(len(name) - 1) if name[place] != name[place + 1]]
    if not places:
        return name
    place = places[int(rng.integers(len(places)))]
    return name[:place] + name[place + 1] + name[place] + name[place + 2 :]


def _compiles(text: str) -> bool:
    try:
        compile(text, "function.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True

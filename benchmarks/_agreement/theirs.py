"""Gets functions out of authors' repositories, at one commit, without installing them and without a copy of their code here."""

import __future__

import ast
import math
import subprocess
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from longreach.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file at a commit of a clone. Args: clone: a git directory, bare or not. commit: 40 hex digits. file: path in the repository."""

    clone: Path
    commit: str
    file: str

    def text(self) -> str:
        """The file as it was at the commit, whatever is checked out.

        Raises: InputError where the clone does not have it.
        """
        command = ["git", "-C", str(self.clone), "show", f"{self.commit}:{self.file}"]
        found = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)  # noqa: S603 - the user's own git
        if found.returncode:
            said = found.stderr.strip()
            raise InputError(f"{self.clone} has no {self.file} at commit {self.commit[:10]} ({said}); clone it whole, with all commits")
        return found.stdout

    def load(self, *names: str, **given: Any) -> SimpleNamespace:
        """What the file defines at its top level under `names`, with all that these definitions refer to at that level.

        A name with dots is a function inside of a class or function, taken out of it: `Decoder.__init__.slopes`; it is found under its last
        part. Nothing else of the file is run: neither its imports nor its patches of other libraries. Its code finds torch, numpy, math and
        typing under their usual names, and in `given` what it imports from elsewhere, or what stands in for a definition.
        Raises: InputError for a name that the file does not define.
        """
        return extracted(self.text(), f"{self.clone.name}/{self.file}", names, given)


def extracted(text: str, origin: str, names: Sequence[str], given: dict[str, Any]) -> SimpleNamespace:
    """`Source.load` on the text of a file; origin: what tracebacks call it."""
    tree = ast.parse(text)
    tree.body += [_inner(tree, name.split("."), origin) for name in names if "." in name]
    names = [name.rpartition(".")[2] for name in names]
    defined = {name: node for node in tree.body for name in _defines(node)}
    if missing := [name for name in names if name not in defined]:
        raise InputError(f"{origin} does not define {', '.join(missing)}")
    wanted, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name in defined and name not in wanted and name not in given:
            wanted.add(name)
            waiting += _used(defined[name])
    tree.body = [node for node in tree.body if wanted.intersection(_defines(node))]
    # Annotations stay text: they name classes of libraries that are not here, and take no part in what is computed.
    code = compile(tree, origin, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)
    space: dict[str, Any] = {**_usual(), **given}
    exec(code, space)  # noqa: S102 - the user asks for the authors' code to be run
    return SimpleNamespace(**{name: space[name] for name in names}, globals=space)


def _used(node: ast.AST) -> Iterator[str]:
    """The names in a definition, but for those in annotations."""
    if isinstance(node, ast.Name):
        yield node.id
    for field, value in ast.iter_fields(node):
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST) and field not in ("annotation", "returns"):
                yield from _used(part)


def _defines(node: ast.stmt) -> Iterable[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return (node.name,)
    if isinstance(node, ast.Assign):
        return tuple(target.id for target in node.targets if isinstance(target, ast.Name))
    return (node.target.id,) if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else ()


def _inner(tree: ast.AST, path: Sequence[str], origin: str) -> ast.stmt:
    """A function inside of others, without its decorators."""
    node: Any = tree
    for name in path:
        node = next((one for one in node.body if name in _defines(one)), None)
        if node is None:
            raise InputError(f"{origin} does not define {'.'.join(path)}")
    node.decorator_list = []
    return node


def _usual() -> dict[str, Any]:
    types = {name: getattr(typing, name) for name in ("Any", "Callable", "Dict", "List", "Optional", "Sequence", "Tuple", "Union")}
    return {"__name__": "theirs", "torch": torch, "nn": nn, "F": nn.functional, "Tensor": torch.Tensor, "np": np, "math": math, **types}

"""Writes what a program can write: the pages methods, api, evidence, agreement, workflows, eviction, tasks, shared and peers in `docs`, the
gallery of cards, and numbers and tables in guides.

    python docs/generate.py [--check]

The methods describe themselves in their own files; evidence is the rows in `docs/evidence`, which
`longreach.reports` draws. With `--check` nothing is written, and the exit code is 1 where a page is stale.
"""

import argparse
import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import longreach
from longreach.core.catalogue import catalogue
from longreach.planning.lines import plan_table
from longreach.reports.abbreviations_table import abbreviation_rows, abbreviations_table
from longreach.reports.agreement import agreement_page, read_agreement
from longreach.reports.card_page import card_page
from longreach.reports.comparison import comparison_tables
from longreach.reports.eviction_page import eviction_page
from longreach.reports.evidence import evidence_page, read, with_numbers
from longreach.reports.library_table import library_tables
from longreach.reports.peers_page import peers_page
from longreach.reports.shared_page import shared_page
from longreach.reports.soak_table import soak_table
from longreach.reports.tasks_page import tasks_page
from longreach.reports.workflows_page import read_rows, workflows_page
from longreach.reports.writing_table import writing_rows, writing_table
from method_pages import methods_page

ROOT = Path(__file__).resolve().parents[1]
_PUBLISHED = ("attention", "cache", "positions", "sampler")  # kinds of methods that authors publish code of
_SERVED = ("nano", "gemma-3-270m")  # models whose rows of benchmarks/serving.py are shown, in this order
_WIDTH = 100  # columns of a signature on one line


def main() -> None:
    """Write the pages, or say which are stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a page is stale")
    check = parser.parse_args().check
    stale = {path: text for path, text in pages(ROOT).items() if not path.exists() or path.read_text(encoding="utf-8") != text}
    for path, text in stale.items():
        print(f"{path.relative_to(ROOT)} {'is stale: run make docs' if check else 'written'}")
        if not check:
            path.write_text(text, encoding="utf-8")
    sys.exit(1 if check and stale else 0)


def pages(root: Path) -> dict[Path, str]:
    """Path -> text of every generated page below `root`, whose guide stands around what is written into it."""
    docs, rows = root / "docs", root / "docs" / "evidence"
    evidence = read(rows)
    entries, agreement = catalogue(), read_agreement(root / "docs" / "evidence" / "agreement")
    return {
        docs / "methods.md": methods_page(entries),
        docs / "api.md": api_page(),
        docs / "evidence.md": evidence_page(evidence),
        docs / "agreement.md": agreement_page(agreement, [entry.name for entry in entries if entry.kind in _PUBLISHED]),
        docs / "workflows.md": workflows_page(read_rows((rows / "workflows").glob("*.jsonl"))),
        docs / "eviction.md": eviction_page(rows / "eviction"),
        docs / "tasks.md": tasks_page(rows / "tasks"),
        docs / "shared.md": shared_page(rows / "shared"),
        docs / "peers.md": peers_page(rows / "peers"),
        docs / "guide-extend.md": with_numbers((docs / "guide-extend.md").read_text(encoding="utf-8"), evidence),
        docs / "guide-evaluate.md": between(
            docs / "guide-evaluate.md", compare=comparison_tables(sorted((rows / "compare").glob("*.json")))
        ),
        docs / "guide-serve.md": between(
            docs / "guide-serve.md", load=load_table(*(rows / "serving" / f"{name}.jsonl" for name in _SERVED))
        ),
        docs / "guide-memory.md": between(
            docs / "guide-memory.md",
            plan=plan_table(rows / "plan" / "smollm2-135m-instruct.json"),
            soak=soak_table(rows / "soak"),
            library=library_tables(rows / "library"),
        ),
        docs / "guide-write.md": between(
            docs / "guide-write.md",
            writing=writing_table(writing_rows(rows / "writing")),
            abbreviations=abbreviations_table(abbreviation_rows(rows / "abbreviations")),
        ),
        docs / "_static" / "gallery.html": gallery(rows / "cards"),
    }


def between(page: Path, **words: str) -> str:
    """The page, with the words of each mark between `<!-- mark -->` and `<!-- /mark -->`."""
    text = page.read_text(encoding="utf-8")
    for mark, said in words.items():
        before, begin, rest = text.partition(f"<!-- {mark} -->\n")
        _, end, after = rest.partition(f"<!-- /{mark} -->")
        if not begin or not end:
            raise ValueError(f"{page} has no place for {mark}")
        text = before + begin + said + end + after
    return text


def load_table(*files: Path) -> str:
    """The rows that `benchmarks/serving.py` wrote."""
    lines = ["| measured | found |", "| --- | --- |"]
    for line in (line for file in files for line in file.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        what = row.pop("what")
        found = [f"{name.replace('_', ' ')}: {_shown(value)}" for name, value in row.items()]
        lines.append(f"| {what} | {', '.join(found)} |")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return " ".join(f"{name}: {count}" for name, count in value.items()) if isinstance(value, dict) else str(value) or "as it is"


def gallery(folder: Path) -> str:
    """The cards of a folder on one page, with the commands that made them."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    cards = [card for file in files for card in file["cards"]]
    return card_page(cards, title="Usable lengths", commands=[file["command"] for file in files])


def api_page() -> str:
    """The public functions and classes, in the order of `longreach.__all__`, and the classes that they return, by their docstrings."""
    public = [getattr(longreach, name) for name in longreach.__all__]
    functions = [each for each in public if inspect.isfunction(each)]
    errors = [each for each in public if inspect.isclass(each) and issubclass(each, Exception)]
    classes = [each for each in public if inspect.isclass(each) and each not in errors]
    methods = [method for each in classes for name, method in vars(each).items() if inspect.isfunction(method) and name[0] != "_"]
    returned = list(dict.fromkeys(found for function in [*functions, *methods] for found in _returned(function)))
    parts = ["# Python API", "Written by `make docs` from the docstrings. `longreach.NAME` is imported when it is first used."]
    for function in functions:
        parts += [f"## {function.__name__}", _signature(function, f"longreach.{function.__name__}"), *_prose(function)]
    for title, described in (("Classes", classes), ("What they return", returned), ("Errors", errors)):
        parts.append(f"## {title}")
        for each in described:
            made = [_made(each)] if each in classes else []
            parts += [f"### {each.__name__}", *made, *_prose(each), *_members(each)]
    return "\n\n".join(parts) + "\n"


def _made(of: type) -> str:
    """How an object of a class is made."""
    name = f"longreach.{of.__name__}"
    if is_dataclass(of):  # what makes it is written nowhere
        return f"```python\n{name}{inspect.signature(of).replace(return_annotation=inspect.Signature.empty)}\n```"
    return _signature(vars(of)["__init__"], name)


def _returned(function: Callable[..., Any]) -> Iterator[type]:
    """The class of longreach's own that a function returns, and those that its properties return."""
    found = inspect.signature(function).return_annotation
    if inspect.isclass(found) and found.__module__.startswith("longreach."):
        yield found
        for member in vars(found).values():
            if isinstance(member, property) and member.fget is not None:
                yield from _returned(member.fget)


def _members(of: type) -> list[str]:
    """The public properties and methods that a class defines, a line each."""
    lines = []
    for name, member in vars(of).items():
        target = member.fget if isinstance(member, property) else member
        if not name.startswith("_") and inspect.isfunction(target) and target.__doc__:
            call = "" if isinstance(member, property) else "()"
            lines.append(f"- `.{name}{call}`: {' '.join(target.__doc__.split())}")
    return ["\n".join(lines)] if lines else []


def _signature(function: Callable[..., Any], name: str) -> str:
    """The signature as it stands in the source, a line for each parameter where it is long."""
    written = inspect.unwrap(function)
    (source,) = (node for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(written)))) if isinstance(node, ast.FunctionDef))
    for part in ast.walk(source.args):
        if isinstance(part, ast.Name) and isinstance(value := written.__globals__.get(part.id), int | str):
            part.id = repr(value)  # a constant of the module, which says nothing to a reader
    returns = f" -> {ast.unparse(source.returns)}" if source.returns and source.name != "__init__" else ""
    whole = ast.unparse(source.args).removeprefix("self, ")
    if len(name + whole + returns) > _WIDTH:
        names = "|".join(inspect.signature(function).parameters)
        cut = re.split(rf", (?=\*, |\*\*|(?:{names}): )", whole)
        whole = "\n" + "".join(f"    {part},\n" for part in cut)
    return f"```python\n{name}({whole}){returns}\n```"


def _prose(of: Any) -> list[str]:
    """The paragraphs of a docstring; those on arguments become lists."""
    takes = of if inspect.isfunction(of) else vars(of).get("__init__")
    names = "|".join([*getattr(of, "__annotations__", ()), *(inspect.signature(takes).parameters if takes else ())])
    parts = []
    for paragraph in (inspect.getdoc(of) or "").split("\n\n"):
        for flat in re.split(r" (?=(?:Args|Returns|Raises|Warns): |The others are )", " ".join(paragraph.split())):
            starts = [match.start() for match in re.finditer(rf"(?<=[.:)] )(?:(?:{names})(?:, )?)+: ", flat)] if flat[:5] == "Args:" else []
            items = [flat[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] if starts else []
            parts.append("\n".join(re.sub(r"^([^:]+): ", r"- `\1`: ", item) for item in items) or flat)
    return parts


if __name__ == "__main__":
    main()

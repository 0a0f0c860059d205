"""Writes what a program can write: `docs/methods.md`, the README's table of methods, and `docs/evidence.md`.

    python docs/generate.py [--check]

The methods describe themselves in their own files; evidence is the result rows in `docs/evidence/*.jsonl`. With `--check` nothing is
written, and the exit code is 1 where a page is stale.
"""

import argparse
import importlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longreach.core.catalogue import Entry, Setting, catalogue
from longreach.core.method import format_value
from longreach.core.registry import KINDS

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- methods -->", "<!-- /methods -->"
EVIDENCE_FIELDS = ("method", "model", "data", "setting", "metric", "number", "paper_claim", "delivers", "command")


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
    """Path -> text of every generated page below `root`, whose README stands around its table."""
    entries, readme = catalogue(), root / "README.md"
    return {
        root / "docs" / "methods.md": methods_page(entries),
        root / "docs" / "evidence.md": evidence_page(read_evidence(root / "docs" / "evidence")),
        readme: with_table(readme.read_text(encoding="utf-8"), entries),
    }


def with_table(readme: str, entries: Sequence[Entry]) -> str:
    """The README with the table of methods between its markers."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md lacks the markers {BEGIN} and {END}")
    rows = [(e.kind, f"[`{e.name}`](docs/methods.md#{e.name})", e.summary, e.limits, _linked(e.paper)) for e in entries]
    return f"{before}{BEGIN}\n{_table(('kind', 'method', 'what it does', 'limits', 'paper'), rows)}\n{END}{after}"


def methods_page(entries: Sequence[Entry]) -> str:
    """Every method by kind, with its settings, cost and limits."""
    parts = ["# Methods", "Written by `make docs` from the methods' own files; `longreach methods --json` gives the same to programs."]
    for kind, package in KINDS.items():
        parts += [f"## {kind}", (importlib.import_module(package).__doc__ or "").strip()]
        for entry in entries:
            if entry.kind == kind:
                parts += _section(entry)
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(entry: Entry) -> list[str]:
    facts = {
        "Paper": f"{entry.title}, {_linked(entry.paper)}",
        "Cost": entry.cost,
        "Limits": entry.limits,
        "Differs from the paper": entry.differs,
        "Declares": ", ".join(flag.replace("_", " ") for flag in entry.flags),
    }
    settings = [*_settings("setting", entry.settings, entry.arguments), *_settings("setting of its fit", entry.fit, entry.fit_arguments)]
    return [f"### {entry.name}", entry.summary, "\n".join(f"- {label}: {text}" for label, text in facts.items() if text), *settings]


def _settings(title: str, settings: Sequence[Setting], arguments: str) -> list[str]:
    rows = [(f"`{s.name}`", s.type, "required" if s.required else f"`{format_value(s.default)}`") for s in settings]
    return [_table((title, "type", "default"), rows), arguments] if rows else []


def read_evidence(folder: Path) -> list[dict[str, Any]]:
    """The rows of every `*.jsonl` in the folder, by method.

    Raises: ValueError, with file and line, for a row whose fields are not exactly `EVIDENCE_FIELDS`.
    """
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            row = json.loads(line)
            if wrong := set(row) ^ set(EVIDENCE_FIELDS):
                raise ValueError(f"{path}:{number}: missing or unknown fields: {', '.join(sorted(wrong))}")
            rows.append(row)
    return sorted(rows, key=lambda row: str(row["method"]))  # stable: a method's rows stay in the order of the files


def evidence_page(rows: Sequence[dict[str, Any]]) -> str:
    """What was measured, beside what the papers claim."""
    intro = "Written by `make docs` from the rows in `docs/evidence/`. Every number comes from the command in its row."
    cells = [
        (
            f"`{row['method']}`",
            row["model"],
            row["data"],
            row["setting"],
            f"{row['metric']}: {_number(row['number'])}",
            row["paper_claim"],
            "yes" if row["delivers"] else "**no**",
            f"`{row['command']}`",
        )
        for row in rows
    ]
    header = ("method", "model", "data", "setting", "number", "paper's claim", "delivers", "command")
    return f"# Evidence\n\n{intro}\n\n{_table(header, cells) if cells else 'No rows are recorded.'}\n"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _linked(paper: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    main()

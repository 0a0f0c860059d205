"""Writes what a program can write: `docs/methods.md`, the README's table of methods, `docs/evidence.md`, and numbers in guides.

    python docs/generate.py [--check]

The methods describe themselves in their own files; evidence is the rows in `docs/evidence`, which
`longreach.reports.evidence` draws. With `--check` nothing is written, and the exit code is 1 where a page is stale.
"""

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from longreach.core.catalogue import Entry, Setting, catalogue
from longreach.core.kinds import kinds
from longreach.core.method import format_value
from longreach.reports.evidence import evidence_page, read, table, with_numbers

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- methods -->", "<!-- /methods -->"


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
    """Path -> text of every generated page below `root`, whose README and guide stand around what is written into them."""
    entries, readme, guide = catalogue(), root / "README.md", root / "docs" / "guide-extend.md"
    evidence = read(root / "docs" / "evidence")
    return {
        root / "docs" / "methods.md": methods_page(entries),
        root / "docs" / "evidence.md": evidence_page(evidence),
        guide: with_numbers(guide.read_text(encoding="utf-8"), evidence),
        readme: with_table(readme.read_text(encoding="utf-8"), entries),
    }


def with_table(readme: str, entries: Sequence[Entry]) -> str:
    """The README with the table of methods between its markers."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md lacks the markers {BEGIN} and {END}")
    rows = [(e.kind, f"[`{e.name}`](docs/methods.md#{e.name})", e.summary, e.limits, _linked(e.paper)) for e in entries]
    return f"{before}{BEGIN}\n{table(('kind', 'method', 'what it does', 'limits', 'paper'), rows)}\n{END}{after}"


def methods_page(entries: Sequence[Entry]) -> str:
    """Every method by kind, with its settings, cost and limits."""
    parts = ["# Methods", "Written by `make docs` from the methods' own files; `longreach methods --json` gives the same to programs."]
    for kind in kinds().values():
        parts += [f"## {kind.name}", (importlib.import_module(kind.package).__doc__ or "").strip()]
        for entry in entries:
            if entry.kind == kind.name:
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
    return [table((title, "type", "default"), rows), arguments] if rows else []


def _linked(paper: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)


if __name__ == "__main__":
    main()

"""What the scripts share that mark published answers: authors' programs run aside, and tables."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from longreach.core.errors import LongreachError

Numbers = tuple[float, ...]


def run_theirs(python: str, wrapper: str, *arguments: str, timeout: float = 3600) -> str:
    """What their program prints. Args: wrapper: a program that runs theirs. Raises: LongreachError where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "run.py"
        script.write_text(wrapper, encoding="utf-8")
        command = [python, str(script), *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)  # noqa: S603 - named by whoever runs it
    if ran.returncode:
        raise LongreachError(f"their program failed on {' '.join(arguments)}:\n{ran.stderr[-1500:]}")
    return ran.stdout


def read_answers(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The objects of a JSON Lines file, and whether every line is one; of a line with more behind its object that is left out, and said."""
    decoder, found, whole = json.JSONDecoder(), [], True
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                value, end = decoder.raw_decode(line)
                found.append(value)
                if rest := line[end:].strip():
                    whole = False
                    print(f"{path}:{number} ends with {rest[:20]!r}, which is left out; their program cannot read it")
    return found, whole


def show(row: Mapping[str, Any]) -> None:
    """A line for a file of answers. Args: row: model, part, and the numbers in percent: ours, theirs, paper."""
    numbers = "".join(f"{name} {_shown(row.get(name, ())):20}" for name in ("ours", "theirs", "paper"))
    print(f"{row['model']:20} {row['part']:26}{numbers}".rstrip(), flush=True)


def finish(rows: Sequence[Mapping[str, Any]], out: Path | None) -> None:
    """Say how far ours and theirs are apart, and write all numbers into a JSON file."""
    compared = [row for row in rows if row.get("theirs")]
    if compared:
        apart = max(abs(one - other) for row in compared for one, other in zip(row["ours"], row["theirs"], strict=True))
        print(f"{len(compared)} files of answers: ours and theirs differ by {apart:.2g} at most (in percent)")
    if out:
        out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def run(main: Callable[[], None], name: str) -> None:
    """Call `main`, and end with one line where something cannot work."""
    try:
        main()
    except LongreachError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)


def _shown(values: Numbers) -> str:
    return " ".join(f"{value:.2f}" for value in values) or "-"

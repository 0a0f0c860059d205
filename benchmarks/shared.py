"""Whether needles of shared texts are found as often as those in prompts of their own; draws docs/shared.md from what was measured so far.

    python benchmarks/shared.py [MODEL] [--name NAME] [--lengths 512,2048] [--method SPEC]... [--samples 5]

At each length and depth as many questions are asked of shared texts as there are prompts of one fact. The two shares are of different
facts at the same depths, and agree where the interval of their difference holds 0.
"""

import argparse
import json
import sys
from pathlib import Path

import longreach
from longreach.cli._progress import BarProgress
from longreach.core.errors import LongreachError
from longreach.core.lengths import parse_length
from longreach.engine import window
from longreach.evaluation.intervals import share_interval
from longreach.evaluation.measure import octaves

DOCS = Path(__file__).resolve().parents[1] / "docs"
ROWS, PAGE = DOCS / "evidence" / "shared", DOCS / "shared.md"
TEXTS = 4
HEAD = """# Needles of shared texts and of prompts of their own

`longreach measure` and `longreach stretch` read a text once and ask all questions of it ([how](../src/longreach/evaluation/readings.py)): a
fact is seen by its own question alone, but the text between the two has not seen it. Here is what that changes: the share of needles found
(the right number is the likeliest of ten) in shared texts, and in as many prompts of one fact each, with Wilson's 95 % intervals and
Newcombe's for the difference.

| model | method | tokens | shared | one fact a prompt | difference | |
| --- | --- | --- | --- | --- | --- | --- |
"""


def difference(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float]:
    """Newcombe's interval for the difference of two independent shares, each (hits, tries)."""
    one, other = share_interval(*first), share_interval(*second)
    mean = one.mean - other.mean
    low = mean - ((one.mean - one.low) ** 2 + (other.high - other.mean) ** 2) ** 0.5
    return low, mean + ((one.high - one.mean) ** 2 + (other.mean - other.low) ** 2) ** 0.5


def measure(args: argparse.Namespace) -> list[dict[str, object]]:
    """One row for each method and length."""
    model, tokenizer = longreach.load(args.model)
    name, rows, trained = args.name or Path(args.model).name, [], window.window_of(model)
    for method in args.method or [""]:
        for length in args.lengths:
            found = []
            for task, samples in (("needle:shared=true", args.samples), ("needle", TEXTS * args.samples)):
                with BarProgress() as progress:
                    measured = longreach.measure(
                        model, tokenizer, to=length, lengths=[octaves(trained, length)[-1]], method=method, tasks=task, windows=TEXTS,
                        samples=samples, progress=progress,
                    )  # fmt: skip
                scores = [row.score for row in measured if row.settings["metric"] == "likelihood"]
                found.append((int(sum(scores)), len(scores)))  # type: ignore[arg-type]
            print(name, method, length, *found, flush=True)
            rows.append({"model": name, "method": method, "length": length, "shared": found[0], "single": found[1]})
    return rows


def page() -> str:
    """docs/shared.md, from the rows of all models."""
    lines = []
    for path in sorted(ROWS.glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            shares = [share_interval(*row[kind]) for kind in ("shared", "single")]
            low, high = difference(tuple(row["shared"]), tuple(row["single"]))
            cells = [f"{share.mean:.2f} ({share.low:.2f} to {share.high:.2f})" for share in shares]
            verdict = "agree" if low <= 0 <= high else "**differ**"
            method = f"`{row['method']}`" if row["method"] else "as it is"
            lines.append(f"| {row['model']} | {method} | {row['length']} | {' | '.join(cells)} | {low:+.2f} to {high:+.2f} | {verdict} |")
    return HEAD + "\n".join(lines) + "\n\nWritten by `python benchmarks/shared.py`.\n"


def main() -> None:
    """Measure, keep the rows, and draw the page."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", nargs="?", default="nano")
    options.add_argument("--name", help="what the page calls the model [default: the last part of MODEL]")
    options.add_argument("--lengths", default="256,512", help="tokens [default: 256,512]")
    options.add_argument("--method", action="append", metavar="SPEC", help="may be repeated [default: the model as it is]")
    options.add_argument("--samples", type=int, default=5, help="questions of each depth to each of 4 texts [default: 5]")
    args = options.parse_args()
    try:
        args.lengths = [parse_length(one) for one in args.lengths.split(",")]
        rows = measure(args)
    except LongreachError as error:
        print(f"shared: {error}", file=sys.stderr)
        sys.exit(2)
    path = ROWS / f"{rows[0]['model']}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    new = {(row["method"], row["length"]) for row in rows}
    ROWS.mkdir(parents=True, exist_ok=True)
    kept = [row for row in known if (row["method"], row["length"]) not in new]
    path.write_text(json.dumps([*kept, *rows], indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

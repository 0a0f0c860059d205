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
from longreach.evaluation.measure import octaves
from longreach.reports.shared_page import shared_page

DOCS = Path(__file__).resolve().parents[1] / "docs"
ROWS, PAGE = DOCS / "evidence" / "shared", DOCS / "shared.md"
TEXTS = 4


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
    PAGE.write_text(shared_page(ROWS), encoding="utf-8")


if __name__ == "__main__":
    main()

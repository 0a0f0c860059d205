"""Draws the README's picture and table from the report of a stretch, of the model as it is and under methods.

python docs/picture.py [REPORT.json]

Without a report it draws the one in docs/evidence/stretch. `longreach stretch` writes a report.json beside each report.html.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).resolve().parent
REPORT, PICTURE, README = DOCS / "evidence" / "stretch" / "smollm2-135m-instruct.json", DOCS / "report.png", DOCS.parent / "README.md"
BEGIN, END = "<!-- needles -->", "<!-- /needles -->"
_STOCK, _OTHERS = "#c0392b", ("#1f77b4", "#2e8b57", "#8e5aa8", "#d38b1d")
Lines = dict[str, dict[int, float]]


def answers(data: dict[str, Any]) -> dict[str, dict[int, tuple[int, int]]]:
    """method -> length -> (needles found, questions), as far as they were asked."""
    sums: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
    for row in data["rows"]:
        if row["settings"]["metric"] == data["metric"]:
            right, asked = sums[row["method"]].get(row["length"], (0, 0))
            sums[row["method"]][row["length"]] = right + round(row["score"] * row["n"]), asked + row["n"]
    return sums


def found(data: dict[str, Any]) -> Lines:
    """method -> length -> share of needles found."""
    return {method: {length: right / n for length, (right, n) in sorted(of.items())} for method, of in answers(data).items()}


def losses(data: dict[str, Any]) -> Lines:
    """method -> length -> loss above that of the same tokens read inside the window; 0 up to the window."""
    lines: Lines = defaultdict(dict)
    for rise in data["rises"]:
        lines[rise["method"]][rise["length"]] = rise["mean"]
    return lines


def table(data: dict[str, Any]) -> str:
    """Needles found at the window and at the target, and the loss past the window, as Markdown."""
    window, target, asked = data["trained_window"], data["target"], answers(data)
    head = f"| {data['model']}, trained on {window} tokens | found at {window} | at {target} | loss increase past the window |"
    lines = [head, "| --- | --- | --- | --- |"]
    for one in sorted(data["methods"], key=lambda one: bool(one["method"])):
        shares = [" of ".join(map(str, asked[one["method"]][length])) for length in (window, target)]
        cells = [f"`{one['method']}`" if one["method"] else "as it is", *shares, f"{one['rise']['mean']:+.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(data: dict[str, Any], path: Path) -> None:
    """Write the picture."""
    plt.rcParams.update({"font.size": 11, "svg.hashsalt": "longreach"})
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    order = ["", *(one["method"] for one in data["methods"] if one["method"] and not one["screened"])]
    colours = dict(zip(order, (_STOCK, *_OTHERS), strict=False))
    window = data["trained_window"]
    panels = (("share of needles found", found(data), (-0.03, 1.05)), ("loss increase past the window (nats a token)", losses(data), None))
    for axis, (title, lines, limits) in zip(axes, panels, strict=True):
        lengths = sorted({length for method in colours for length in lines.get(method, {}) if length >= window // 8})
        for method, colour in colours.items():
            points = {length: value for length, value in lines.get(method, {}).items() if length in lengths}
            label = method or f"{data['model']} as it is"
            axis.plot(list(points), list(points.values()), marker="o", color=colour, lw=2.5 if not method else 2, label=label)
        axis.axvline(window, color="grey", ls=":", lw=1)
        axis.text(window, 1.01, f"trained window, {window}", transform=axis.get_xaxis_transform(), ha="center", fontsize=9, color="grey")
        axis.set_xscale("log", base=2)
        axis.set_xticks(lengths, [f"{length // 1024}k" if length >= 1024 else str(length) for length in lengths])
        axis.minorticks_off()
        axis.set_xlabel("tokens")
        axis.set_title(title, fontsize=11, pad=18)
        if limits:
            axis.set_ylim(*limits)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, loc="lower left", fontsize=9)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    """Read the report, draw, and fill in the table."""
    if len(sys.argv) > 2 or sys.argv[1:2] == ["--help"]:
        sys.exit(__doc__)
    report = Path(sys.argv[1]) if sys.argv[1:] else REPORT
    if not report.is_file():
        sys.exit(f"there is no report {report}")
    data = json.loads(report.read_text(encoding="utf-8"))
    draw(data, PICTURE)
    text = README.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    README.write_text(f"{before}\n{table(data)}\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

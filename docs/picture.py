"""Draws the README's picture from the report of a stretch: needles found and loss, by length, of the model as it is and under methods.

python docs/picture.py REPORT.json [PICTURE.png]
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

_STOCK, _OTHERS = "#c0392b", ("#1f77b4", "#2e8b57", "#8e5aa8", "#d38b1d")
Lines = dict[str, dict[int, float]]


def found(data: dict[str, Any]) -> Lines:
    """method -> length -> share of needles found, as far as they were asked for."""
    sums: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    for row in data["rows"]:
        if row["settings"]["metric"] == data["metric"]:
            both = sums[row["method"]][row["length"]]
            both[0] += row["score"] * row["n"]
            both[1] += row["n"]
    return {method: {length: right / n for length, (right, n) in sorted(of.items())} for method, of in sums.items()}


def losses(data: dict[str, Any]) -> Lines:
    """method -> length -> loss above that of the same tokens read inside the window; 0 up to the window."""
    lines: Lines = defaultdict(dict)
    for rise in data["rises"]:
        lines[rise["method"]][rise["length"]] = rise["mean"]
    return lines


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
    """Read the report, and draw."""
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2] if len(sys.argv) == 3 else "docs/report.png"))


if __name__ == "__main__":
    main()

"""The loss curve of a run: rows in `loss.jsonl` while it goes, and the picture `loss.png`."""

import json
import time
from pathlib import Path
from typing import Any

_SMOOTHED = 10  # rows


class LossLog:
    """Appends rows of step, tokens, loss, learning rate and seconds of training.

    Args: folder: of the run. step: that the run goes on from; rows beyond it are of work that was lost, and are taken out.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.file, self.picture = folder / "loss.jsonl", folder / "loss.png"
        lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True) if self.file.is_file() else []
        whole = [json.loads(line) for line in lines if line.endswith("\n")]  # a kill may have cut the last one
        self.rows: list[dict[str, Any]] = [row for row in whole if row["step"] <= step]
        folder.mkdir(parents=True, exist_ok=True)
        self.file.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        self._before = self.rows[-1]["seconds"] if self.rows else 0.0
        self._began = time.monotonic()

    def add(self, **values: float) -> None:
        """Add a row."""
        row = {**values, "seconds": round(self._before + time.monotonic() - self._began, 1)}
        self.rows.append(row)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def draw(self) -> None:
        """Draw the loss over the steps, with its moving mean."""
        from matplotlib.figure import Figure

        steps, losses = [row["step"] for row in self.rows], [row["loss"] for row in self.rows]
        means = [sum(part) / len(part) for i in range(len(losses)) if (part := losses[max(0, i + 1 - _SMOOTHED) : i + 1])]
        figure = Figure(figsize=(7, 3.5), layout="constrained")
        axes = figure.subplots()
        axes.plot(steps, losses, color="0.75", linewidth=1)
        axes.plot(steps, means, color="tab:blue", linewidth=1.5, label=f"mean of {_SMOOTHED} rows")
        axes.set(xlabel="step", ylabel="loss (nats a token)")
        axes.legend(frameon=False)
        figure.savefig(self.picture, dpi=150)

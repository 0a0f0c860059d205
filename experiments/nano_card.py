"""The model card of `nano`: written from the training log and from measurements of the finished model."""

import json
from pathlib import Path
from typing import Any

from matplotlib import pyplot

import longreach
from longreach.evaluation.measure import measure, parse_tasks
from longreach.evaluation.rows import Row
from longreach.evaluation.usable import summarise
from longreach.training.pretrain import PretrainConfig

SAMPLES = 20  # prompts of each depth and length

CARD = """# nano

A Llama-architecture model for trying what longreach does to a window: {parameters:.1f}M parameters, a window of {window} tokens, and a
byte-level BPE of {vocabulary} tokens in which every digit stands alone. It knows little and is no use for anything else.

- Data: {books} tokens of public-domain books, {code} tokens of the Python standard library's source (the held-out modules of
  `longreach.data.stdlib` and the language reference excepted), and synthetic recall (`longreach.data.recall`). Shares of the
  sequences, in the first {first_part} of the steps and in the rest: {shares}.
- Training: {tokens:.1f}M tokens in {steps} steps of {batch_size} sequences of {seq_len} tokens, Muon and AdamW at a rate of {lr:g},
  {minutes:.0f} minutes on a {device}.
- Validation books: {bits:.3f} bits a byte.
{note}
Rebuild: `python experiments/nano.py --data FOLDER --tokens {millions:g}M`, with books as `FOLDER/train/*.txt` and `FOLDER/valid/*.txt`.

![Training loss](loss.png)

## Loss over the window

Validation books, nats a token.

{loss}

## Recall inside the window

{recall}

## Validation during training

{progress}
"""


def write_card(out: Path, work: Path, config: PretrainConfig, valid: str, facts: dict[str, Any]) -> None:
    """`README.md` and `loss.png` in `out`. Args: work: folder of `loss.jsonl`. valid: text to measure on. facts: what else CARD names."""
    model, tokenizer = longreach.load(str(out))
    tasks = parse_tasks("loss+passkey+needle")
    rows = summarise(measure(model, tokenizer, name="nano", to=facts["window"], text=valid, tasks=tasks, samples=SAMPLES))
    curve = _curve(work / "loss.jsonl", config.steps)
    checked = [row for row in curve if "valid_bits_per_byte" in row]
    _draw(curve, out / "loss.png")
    losses = [row for row in rows if row.task == "loss"]
    answers = [row for row in rows if row.task != "loss"]
    card = CARD.format(
        **{**facts, "note": f"- {facts['note']}\n" if facts["note"] else ""},
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        tokens=config.steps * config.batch_size * config.seq_len / 1e6,
        millions=config.tokens / 1e6,
        steps=config.steps,
        batch_size=config.batch_size,
        seq_len=config.seq_len,
        lr=config.lr,
        minutes=curve[-1]["seconds"] / 60,
        bits=checked[-1]["valid_bits_per_byte"],
        loss=_table(("position", "loss"), [(f"{row.settings['start']} to {row.length}", f"{row.score:.3f}") for row in losses]),
        recall=_table(("task", "by", "length", "depth", "score", "prompts"), [_answer(row) for row in answers]),
        progress=_table(
            ("million tokens", "bits a byte"), [(f"{row['tokens'] / 1e6:.1f}", f"{row['valid_bits_per_byte']:.3f}") for row in checked]
        ),
    )
    (out / "README.md").write_text(card, encoding="utf-8")


def _curve(path: Path, steps: int) -> list[dict[str, Any]]:
    """The log in the order of its steps; a run that was resumed has logged some twice, and the later one counts."""
    by_step = {row["step"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    return [by_step[step] for step in sorted(by_step) if step <= steps]


def _draw(curve: list[dict[str, Any]], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    axes.plot([row["tokens"] / 1e6 for row in curve], [row["loss"] for row in curve], linewidth=0.8)
    axes.set(xlabel="million tokens", ylabel="training loss (nats a token)")
    figure.savefig(path, dpi=110)


def _answer(row: Row) -> tuple[str, ...]:
    return (row.task, str(row.settings["metric"]), str(row.length), f"{row.depth:g}", f"{row.score:.2f}", str(row.n))


def _table(header: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ("---",) * len(header), *lines))

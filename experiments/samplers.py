"""Tunes one model with each position sampler, and under HARPE, on as many tokens each, and compares how they read beyond the window.

    python experiments/samplers.py --data FOLDER --model FOLDER [--steps 150] [--work DIR] [--evidence FOLDER]

--data holds `train/*.txt` and `valid/*.txt` (books), --model a checkpoint with rotary positions, such as one of `experiments/scratch.py`. A
run that was stopped goes on when the same command is given again.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learned_positions import differences
from nano import read_books

import longreach
from longreach.core import registry
from longreach.data.sources import Texts
from longreach.engine.window import window_of
from longreach.evaluation.evidence import Number, claim_row, counted, describe, write
from longreach.evaluation.intervals import mean_interval
from longreach.evaluation.measure import measure, parse_tasks
from longreach.evaluation.rows import Row, Rows
from longreach.training.plan import TuneConfig, position_sampler
from longreach.training.tune import tune

TIMES = 8  # windows to reach
TEXTS = 16  # windows of held-out text
BATCH = 32  # sequences of the window's length a step; as many tokens in longer ones
RATE = 1e-3
METRICS = {
    "sampler_rise": "loss at 4 to 8 windows above that of the plain model on the same tokens inside its window, nats a token",
    "sampler_above_full": "loss at 4 to 8 windows above that of training at full length on as many tokens, nats a token",
    "sampler_above_pose": "loss at 4 to 8 windows above that of training with pose on as many tokens, nats a token",
    "sampler_below_untuned": "loss at 4 to 8 windows below that under the same positions without training, nats a token",
}
HARPE = "harpe:base_min=20000,base_max=500000"  # around the base that NTK-aware scaling gives a base of 10000 for 8 windows
PLAIN = "the plain model, inside its window"


def runs() -> dict[str, tuple[str, str]]:
    """Method -> the sampler and the spec that it is trained with."""
    found = {}
    for sampler in registry.names("sampler"):
        usual = "linear" if position_sampler(sampler).uniform_scaling else "yarn"
        found[sampler] = (sampler, f"{usual}:factor={TIMES}")
    return found | {"harpe": ("full_length", HARPE)}


def config(sampler: str, method: str, window: int, steps: int) -> TuneConfig:
    """A run of as many tokens as every other. HARPE's attention cannot tell short texts in long sequences apart, so it sees none."""
    whole = sampler == "full_length"
    mixture = {"long": 1.0} if method == HARPE else {"long": 0.8, "short": 0.2}
    return TuneConfig(
        target=TIMES * window, method=method, sampler=sampler, steps=steps, batch_size=BATCH // TIMES if whole else BATCH, lr=RATE,
        full=True, mixture=mixture, warmup=0.05,
    )  # fmt: skip


def losses(name: str, data: Path, folder: str, steps: int, work: Path, rows: Rows) -> Mapping[str, list[Row]]:
    """Rows of the loss of the model that is tuned with each sampler, of the untuned one under the same positions, and of the plain one."""
    texts = Texts(names=("books",), contents=("\n\n".join(read_books(data / "train"))[:8_000_000],), skipped=())
    valid = "\n\n".join(read_books(data / "valid"))
    window = window_of(longreach.load(folder).model)
    common: dict[str, Any] = {"text": valid, "windows": TEXTS, "to": TIMES * window, "trained_window": window, "rows": rows}
    found = {PLAIN: measure(*longreach.load(folder), name=name, tasks=parse_tasks(f"loss_inside:window_size={window}"), **common)}
    for label, (sampler, method) in runs().items():
        model, tokenizer = longreach.load(folder)
        run = work / label
        found[f"untuned, {method}"] = measure(model, tokenizer, name=name, tasks=parse_tasks("loss"), method=method, **common)
        settings = config(sampler, method, window, steps)
        tuned = tune(model, tokenizer, texts, settings, run, held_out=valid, tokens=work / "tokens.npz")
        print(f"{label}: short loss {tuned.gate.rise:+.2%}", flush=True)
        told: dict[str, Any] = {"name": f"{name}, {label}, {steps} steps", "tasks": parse_tasks("loss"), "method": tuned.plan.spec}
        found[label] = measure(tuned.model, tokenizer, **told, **common)
    return found


def evidence(found: Mapping[str, list[Row]], name: str, window: int, steps: int) -> list[dict[str, Any]]:
    """A row of the evidence table for each claim of each sampler."""
    rows = []
    for label, (sampler, method) in runs().items():
        others = {
            "sampler_rise": found[PLAIN], "sampler_above_full": found["full_length"], "sampler_above_pose": found["pose"],
            "sampler_below_untuned": found[f"untuned, {method}"],
        }  # fmt: skip
        for claim in registry.get(label).info.claims:
            sides = (found[label], others[claim.metric])
            first, second = reversed(sides) if claim.metric == "sampler_below_untuned" else sides
            by = differences(first, second, lambda row: row.length == TIMES * window)
            finding = Number(spec=label, interval=mean_interval(list(by.values())), of=counted(by, "text"))
            setting = f"`{sampler}`, {method}, {window} to {TIMES * window} tokens, {steps} steps of {BATCH * window}"
            command = f"python experiments/samplers.py --data FOLDER --model FOLDER --steps {steps}"
            facts = {"setting": setting, "metric": METRICS[claim.metric], "command": command}
            rows.append(claim_row(label, claim, finding, model=name, data="held-out books", **facts))
    return rows


def main() -> None:
    """Tune with each, measure each, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/*.txt and valid/*.txt")
    parser.add_argument("--model", required=True, help="a checkpoint's folder")
    parser.add_argument("--name", default="llama-scratch-tuned", help="what the docs call it")
    parser.add_argument("--trained-on", metavar="WORDS", default="not stated", help="its training data in words")
    parser.add_argument("--steps", type=int, default=150, help="of each run")
    parser.add_argument("--work", type=Path, default=Path("samplers-run"), help="folder for the runs and results")
    parser.add_argument("--evidence", type=Path, help="folder for the rows of the evidence table (docs/evidence)")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    found = losses(args.name, args.data, args.model, args.steps, args.work, Rows(args.work / "rows.jsonl"))
    model = longreach.load(args.model).model
    told = evidence(found, args.name, window_of(model), args.steps)
    for row in told:
        print(f"{row['method']}: {row['metric']} {row['number']:.3g} ({row['low']:.3g} to {row['high']:.3g}): {row['verdict']}")
    if args.evidence:
        write(args.evidence, describe(model, name=args.name, trained_on=args.trained_on), told)


if __name__ == "__main__":
    main()

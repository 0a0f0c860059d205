"""Trains a small GPT-2 with 128 learned positions, and compares what lengthens its table to 512, without and with further training.

    python experiments/learned_positions.py --data FOLDER [--tokens 3M] [--tune 1M] [--work DIR] [--evidence FOLDER]

FOLDER holds `train/*.txt` and `valid/*.txt` (books). A run that was killed goes on when the same command is given again.
"""

import argparse
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from nano import read_books
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerBase

import longreach
from longreach.core import registry
from longreach.engine.tables import position_tables
from longreach.evaluation.evidence import Number, claim_row, counted, describe, write
from longreach.evaluation.intervals import mean_interval
from longreach.evaluation.measure import measure, parse_tasks
from longreach.evaluation.rows import Row, Rows, by_text
from longreach.positions.base import TableMethod
from longreach.training.pretrain import PretrainConfig, pretrain

WINDOW, TARGET = 128, 512
NAME = "GPT-2, 2.6M parameters"  # in the rows of what was measured
MODEL = "gpt2-learned"  # in the docs
TEXTS = 16  # windows of held-out text
TUNED = "interpolated_positions"
METRICS = {
    "rise": "loss beyond the window above that of the plain model on the same tokens inside its window, nats a token",
    "inside_against_interpolated": "loss inside the window above that of interpolated_positions, nats a token",
    "tuned_rise": "after training at the new length: loss beyond the window above that of the same model reading no more than a window",
}
_CHARACTERS = 16  # more than a token has on average, in any text
Ids = np.ndarray[Any, Any]


def model_config(tokenizer: PreTrainedTokenizerBase) -> GPT2Config:
    """GPT-2 with 4 layers of 192 and 6 heads."""
    return GPT2Config(
        vocab_size=len(tokenizer), n_positions=WINDOW, n_embd=192, n_layer=4, n_head=6, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def encode(tokenizer: Any, texts: Iterable[str], count: int) -> Ids:
    """The first `count` ids of the texts."""
    parts: list[int] = []
    for text in texts:
        part = text[: _CHARACTERS * count]  # the rest would only be thrown away
        parts += tokenizer.backend_tokenizer.encode(part, add_special_tokens=False).ids
        if len(parts) >= count:
            break
    return np.array(parts[:count])


def train(
    model: PreTrainedModel, ids: Ids, config: PretrainConfig, folder: Path, held_out: torch.Tensor, tokenizer: Any, *,
    positions: Callable[[int], torch.Tensor] | None = None,
) -> None:  # fmt: skip
    """Train on random pieces of the ids; each begins with the beginning of text, as pieces that are measured do.

    Args: positions: step -> [B, seq_len] (default: from 0 on).
    """
    bos = model.config.bos_token_id

    def batch(step: int) -> torch.Tensor:
        starts = np.random.default_rng((0, step)).integers(0, len(ids) - config.seq_len, size=config.batch_size)
        return torch.tensor(np.stack([np.concatenate(([bos], ids[start : start + config.seq_len])) for start in starts]))

    @torch.no_grad()
    def bits_per_byte(module: torch.nn.Module) -> float:
        rows = held_out[:, : config.seq_len]
        logits = module(rows, use_cache=False).logits[:, :-1].float()
        nats = float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum"))
        return nats / math.log(2) / sum(len(tokenizer.decode(row.tolist()).encode()) for row in rows[:, 1:])

    folder.mkdir(parents=True, exist_ok=True)
    pretrain(model, batch, config, folder, evaluate=bits_per_byte, positions=positions)


def specs() -> dict[str, str]:
    """name -> spec of every method for learned positions, with the settings that it suggests."""
    methods = [registry.get(name) for name in registry.names("positions")]
    return {method.name(): method.suggest(WINDOW, TARGET)[0].spec for method in methods if issubclass(method, TableMethod)}


def compare(
    base: PreTrainedModel, tuned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, rows: Rows
) -> Mapping[str, list[Row]]:
    """Rows of the loss by what was measured: the spec of a method on the base model, or words."""
    common: dict[str, Any] = {"text": text, "windows": TEXTS, "to": TARGET, "trained_window": WINDOW, "rows": rows}
    inside = parse_tasks(f"loss_inside:window_size={WINDOW}")
    found = {"stock, inside its window": measure(base, tokenizer, name=NAME, tasks=inside, **common)}
    for spec in specs().values():
        found[spec] = measure(base, tokenizer, name=NAME, tasks=parse_tasks("loss"), method=spec, **common)
    found["tuned, inside a window"] = measure(tuned, tokenizer, name=f"{NAME}, tuned", tasks=inside, **common)
    found["tuned"] = measure(tuned, tokenizer, name=f"{NAME}, tuned", tasks=parse_tasks("loss"), **common)
    return found


def differences(rows: Iterable[Row], others: Iterable[Row], keep: Callable[[Row], bool]) -> dict[str, float]:
    """By text: nats a token of the first above the others, over the octaves that are kept."""
    first, second = (by_text(row for row in each if keep(row)) for each in (rows, others))
    return {text: loss - second[text] for text, loss in first.items()}


def evidence(found: Mapping[str, list[Row]], command: str) -> list[dict[str, Any]]:
    """A row of the evidence table for each claim of each method."""
    rows = []
    for name, spec in specs().items():
        pairs = {
            "rise": (found[spec], found["stock, inside its window"], _beyond),
            "inside_against_interpolated": (found[spec], found[specs()[TUNED]], _inside),
            "tuned_rise": (found["tuned"], found["tuned, inside a window"], _beyond),
        }
        for claim in (claim for claim in registry.get(name).info.claims if claim.metric in pairs):
            by = differences(*pairs[claim.metric])
            finding = Number(spec=spec, interval=mean_interval(list(by.values())), of=counted(by, "text"))
            facts = {"setting": f"`{spec}`, {WINDOW} to {TARGET} tokens", "metric": METRICS[claim.metric], "command": command}
            rows.append(claim_row(name, claim, finding, model=MODEL, data="held-out books", **facts))
    return rows


def _beyond(row: Row) -> bool:
    return row.length > WINDOW


def _inside(row: Row) -> bool:
    return row.length <= WINDOW


def show(found: Mapping[str, list[Row]]) -> None:
    """Print the loss by octave."""
    ends = sorted({(row.settings["start"], row.length) for rows in found.values() for row in rows})
    print(f"{'nats a token':46}" + "".join(f"{f'{start + 1}-{end}':>10}" for start, end in ends))
    for name, rows in found.items():
        cells = {end: [row.score or 0.0 for row in rows if row.length == end] for _, end in ends}
        print(f"{name:46}" + "".join(f"{fmean(values):10.3f}" if values else f"{'':10}" for values in cells.values()))


def main() -> None:
    """Train, lengthen, train on, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/*.txt and valid/*.txt")
    parser.add_argument("--tokens", default="3M", help="tokens to train on, in millions (3M)")
    parser.add_argument("--tune", default="1M", help="tokens to train the lengthened model on")
    parser.add_argument("--work", type=Path, default=Path("learned-positions-run"), help="folder for checkpoints and results")
    parser.add_argument("--evidence", type=Path, help="folder for the rows of the evidence table (docs/evidence)")
    args = parser.parse_args()
    tokens, tune = (int(float(given.rstrip("M")) * 1e6) for given in (args.tokens, args.tune))
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer = longreach.load("nano").tokenizer
    ids = encode(tokenizer, read_books(args.data / "train"), 2 * (tokens + tune))
    valid = "\n\n".join(read_books(args.data / "valid"))
    held_out = torch.tensor(encode(tokenizer, [valid[:200_000]], 16 * TARGET).reshape(16, TARGET))
    torch.manual_seed(0)
    base = GPT2LMHeadModel(model_config(tokenizer))
    print(f"{sum(p.numel() for p in base.parameters()) / 1e6:.2f}M parameters, {len(ids) / 1e6:.1f}M tokens of text")
    train(base, ids, PretrainConfig(tokens=tokens, seq_len=WINDOW, compile=False), args.work / "base", held_out, tokenizer)

    spec = specs()[TUNED]
    longreach.save(base, tokenizer, args.work / "longer", method=spec)
    tuned = GPT2LMHeadModel.from_pretrained(args.work / "longer")
    print(f"{spec}: {position_tables(tuned)[0].positions} positions")
    config = PretrainConfig(tokens=tune, seq_len=TARGET, batch_size=8, lr=1e-3, compile=False)
    train(tuned, ids, config, args.work / "tuned", held_out, tokenizer)

    found = compare(base, tuned, tokenizer, valid, Rows(args.work / "rows.jsonl"))
    show(found)
    command = f"python experiments/learned_positions.py --data FOLDER --tokens {args.tokens} --tune {args.tune}"
    rows = evidence(found, command)
    for row in rows:
        print(f"{row['method']}: {row['metric']} {row['number']:.3g} ({row['low']:.3g} to {row['high']:.3g}): {row['verdict']}")
    if args.evidence:
        write(args.evidence, describe(base, name=MODEL, trained_on=f"{tokens / 1e6:g}M tokens of public-domain books"), rows)


if __name__ == "__main__":
    main()

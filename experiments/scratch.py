"""Trains a small Llama from scratch under each way to tell positions, on short texts, and compares how far each reads.

    python experiments/scratch.py --data FOLDER [--methods SPEC ...] [--tokens 2M] [--work DIR] [--evidence FOLDER]

FOLDER holds `train/*.txt` and `valid/*.txt` (books). Each model is kept in its folder in DIR, with its method; a run that was killed goes
on when the same command is given again.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from learned_positions import Ids, differences, encode, show, train
from nano import read_books
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, set_seed

import longreach
from longreach.core.spec import parse
from longreach.data.stdlib import stdlib_text
from longreach.engine.weights import own_weights
from longreach.evaluation.evidence import Number, bounds, claim_row, counted, describe, write
from longreach.evaluation.intervals import mean_interval
from longreach.evaluation.measure import measure, parse_tasks
from longreach.evaluation.rows import Row, Rows, by_text
from longreach.training.pretrain import PretrainConfig
from longreach.training.samplers.base import Geometry
from longreach.training.samplers.randomized import Randomized

WINDOW, TARGET = 128, 1024
NAME = "Llama, 1.9M parameters"  # in the rows of what was measured
MODEL = "llama-scratch"  # in the docs
TEXTS = 16  # windows of held-out text
ROPE, RANDOMIZED, TUNED, PREFIX = "rope", "randomized", "nope+head_temperature", "ntk_attention"
METHODS = (
    ROPE, RANDOMIZED, "nope", "nope+alibi", "nope+t5_bias", "nope+cable", f"lex:block_size={WINDOW // 2}", "fope", "rope_alibi",
    "nope+rpe_family:series=type1",
)  # fmt: skip
TUNE_STEPS, TUNE_TOKENS, TUNE_RATE = 60, 2 * TARGET, 1e-2  # of weights that methods have of their own
SOURCE = 1_000_000  # tokens of Python source that a prefix is tuned on
METRICS = {
    "scratch_rise_8x": "loss at 4 to 8 times the training length above that of the same tokens read inside it, nats a token",
    "scratch_rise_2x_below_rope": "that rise at 1 to 2 times the training length, above that of rotary positions",
    "scratch_rise_8x_below_rope": "that rise at 4 to 8 times the training length, above that of rotary positions",
    "scratch_prefix_gain": "loss on Python source inside the window, below that of the same model without the prefix, nats a token",
    "scratch_tuned_gain_8x": "loss at 4 to 8 times the training length, below that of the same model without, nats a token",
}


def model_config(tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    """Llama with 4 layers of 160 and 5 heads of 32."""
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=160, intermediate_size=448, num_hidden_layers=4, num_attention_heads=5,
        max_position_embeddings=WINDOW, tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def spec_of(name: str, model: PreTrainedModel | None = None) -> str:
    """The spec that a model is trained under, and, given the saved model, what has to be applied to it: rotary positions need nothing,
    and what a config can express (nope by itself) stands in its config.
    """
    spec = "" if name in (ROPE, RANDOMIZED) else name
    if model is not None and spec and vars(model)["longreach_record"].exported:
        return spec.removeprefix("nope").removeprefix("+")
    return spec


def trained(
    name: str, tokenizer: PreTrainedTokenizerBase, ids: Ids, config: PretrainConfig, work: Path, held_out: torch.Tensor
) -> PreTrainedModel:
    """The model trained under a method; from its folder where it is there."""
    folder, spec = work / name.replace(":", "-").replace("=", ""), spec_of(name)
    if (folder / "longreach.json").is_file():
        return longreach.load(folder, apply_method=False).model
    set_seed(0)
    model = longreach.equip(LlamaForCausalLM(model_config(tokenizer)), spec)
    positions = randomized_positions(config) if name == RANDOMIZED else None
    with longreach.apply(model, spec):
        train(model, ids, config, work / f"{folder.name}-run", held_out, tokenizer, positions=positions)
    longreach.save(model, tokenizer, folder, method=spec or None, target=TARGET if spec else None)
    return longreach.load(folder, apply_method=False).model


def randomized_positions(config: PretrainConfig) -> Any:
    """step -> positions [B, T] drawn from the whole target and sorted, for each row anew."""
    geometry = Geometry(seq_len=config.seq_len, target=TARGET, trained_window=WINDOW)

    def positions(step: int) -> torch.Tensor:
        rng = np.random.default_rng((1, step))
        rows = [Randomized().sample(rng, geometry)[1] for _ in range(config.batch_size)]
        return torch.from_numpy(np.stack(rows)).long()

    return positions


def tuned(model: PreTrainedModel, ids: Ids, spec: str, length: int) -> PreTrainedModel:
    """The model with the weights that a method has of its own, trained on texts of `length` tokens; nothing else of it is."""
    longreach.equip(model, spec)
    weights = list(own_weights(model).values())
    optimizer = torch.optim.AdamW(weights, lr=TUNE_RATE, weight_decay=0)
    with longreach.apply(model, spec):
        for step in range(TUNE_STEPS):
            starts = np.random.default_rng((2, step)).integers(0, len(ids) - length, size=TUNE_TOKENS // length)
            batch = torch.tensor(np.stack([ids[start : start + length] for start in starts]))
            loss = model(batch, labels=batch, use_cache=False).loss
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.grad = gradient
            optimizer.step()
            if step % 20 == 0:
                print(f"{spec}: step {step} loss {loss.item():.3f}", flush=True)
    return model


def learned_prefix(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> Mapping[str, list[Row]]:
    """Rows of the loss on Python source inside the window, without a prefix and with one that was trained on other source."""
    common: dict[str, Any] = {
        "text": stdlib_text("held-out"), "windows": TEXTS, "to": TARGET, "lengths": (WINDOW,), "trained_window": WINDOW, "rows": rows,
        "tasks": parse_tasks("loss"),
    }  # fmt: skip
    found = {"source": measure(model, tokenizer, name=f"{NAME}, {ROPE}", **common)}
    tuned(model, encode(tokenizer, [stdlib_text("train")], SOURCE), PREFIX, WINDOW)
    return found | {f"source, {PREFIX}": measure(model, tokenizer, name=f"{NAME}, {PREFIX}", method=PREFIX, **common)}


def losses(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, text: str, rows: Rows) -> Mapping[str, list[Row]]:
    """Rows of the loss by position, and of the same tokens read inside a window."""
    common: dict[str, Any] = {
        "text": text, "windows": TEXTS, "to": TARGET, "trained_window": WINDOW, "rows": rows, "method": spec_of(name, model) or None,
        "name": f"{NAME}, {name}",
    }  # fmt: skip
    inside = measure(model, tokenizer, tasks=parse_tasks(f"loss_inside:window_size={WINDOW}"), **common)
    return {name: measure(model, tokenizer, tasks=parse_tasks("loss"), **common), f"{name}, inside a window": inside}


def rise(found: Mapping[str, list[Row]], name: str, times: int) -> dict[str, float]:
    """By text: nats a token between `times` / 2 and `times` windows, above the same tokens inside a window."""
    return differences(found[name], found[f"{name}, inside a window"], lambda row: row.length == times * WINDOW)


def above(found: Mapping[str, list[Row]], name: str, times: int) -> dict[str, float]:
    """By text: that rise above that of rotary positions."""
    rotary = rise(found, ROPE, times)
    return {text: loss - rotary[text] for text, loss in rise(found, name, times).items()}


def difference(found: Mapping[str, list[Row]], name: str, metric: str) -> dict[str, float]:
    """By text: the number that a metric asks for."""
    if metric == "scratch_rise_8x":
        return rise(found, name, 8)
    if metric == "scratch_prefix_gain":
        return differences(found["source"], found[f"source, {PREFIX}"], lambda row: True)
    if metric == "scratch_tuned_gain_8x":
        return differences(found["nope"], found[name], lambda row: row.length == TARGET)
    return above(found, name, 2 if metric == "scratch_rise_2x_below_rope" else 8)


def evidence(found: Mapping[str, list[Row]], names: Sequence[str], command: str) -> list[dict[str, Any]]:
    """A row of the evidence table for each claim that these models can show."""
    rows = []
    for name in names:
        method = type(parse(spec_of(name))[-1]) if spec_of(name) else None
        for claim in method.info.claims if method is not None else ():
            if method is None or claim.metric not in METRICS:
                continue
            by = difference(found, name, claim.metric)
            finding = Number(spec=name, interval=mean_interval(list(by.values())), of=counted(by, "text"))
            setting = f"`{name}`, trained on {WINDOW}, read to {WINDOW if name == PREFIX else TARGET} tokens"
            data = "held-out standard library" if name == PREFIX else "held-out books"
            facts = {"model": MODEL, "data": data, "setting": setting, "metric": METRICS[claim.metric], "command": command}
            rows.append(claim_row(method.name(), claim, finding, **facts))
    return rows


def by_length(found: Mapping[str, list[Row]], names: Sequence[str], facts: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each method and length, of the last octave up to it: the loss, and its rise above the same tokens inside the window."""
    rows = []
    for name in names:
        for times in (1, 2, 4, 8):
            losses = by_text(row for row in found[name] if row.length == times * WINDOW)
            rises = rise(found, name, times) if times > 1 else dict.fromkeys(losses, 0.0)
            interval = bounds(mean_interval(list(rises.values())), "rise", "rise_low", "rise_high")
            unknown = dict.fromkeys(("found", "found_low", "found_high", "tokens_per_s", "peak_bytes"))
            numbers = {"texts": len(losses), "prompts": 0, "forgets": False, "loss": fmean(losses.values()), **interval, **unknown}
            rows.append({**facts, "condition": "trained", "method": name, "setting": name, "length": times * WINDOW, **numbers})
    return rows


def options(description: str | None, methods: Sequence[str], what: str, tokens: str, work: str) -> argparse.Namespace:
    """What the command line says. Args: methods, tokens, work: where it says nothing. what: METHODS are, beside specs."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/*.txt and valid/*.txt")
    parser.add_argument("--methods", nargs="+", default=methods, metavar="SPEC", help=what)
    parser.add_argument("--tokens", default=tokens, help=f"tokens to train each on, in millions ({tokens})")
    parser.add_argument("--work", type=Path, default=Path(work), help="folder for models and results")
    parser.add_argument("--evidence", type=Path, help="folder for the rows of the evidence table (docs/evidence)")
    return parser.parse_args()


def books(data: Path, tokenizer: PreTrainedTokenizerBase, config: PretrainConfig) -> tuple[Ids, str, torch.Tensor]:
    """Tokens to train on, the text that is held out, and 16 pieces of that, [16, TARGET]."""
    valid = "\n\n".join(read_books(data / "valid"))
    held_out = torch.tensor(encode(tokenizer, [valid[:200_000]], 16 * TARGET).reshape(16, TARGET))
    return encode(tokenizer, read_books(data / "train"), 2 * config.tokens), valid, held_out


def publish(
    told: Sequence[dict[str, Any]], lengths: Sequence[dict[str, Any]], model: str, config: PretrainConfig, folder: Path | None
) -> None:
    """Print what claims were held to and, where there is a folder for it, write that and the losses by length."""
    for row in told:
        print(f"{row['method']}: {row['metric']} {row['number']:.3g} ({row['low']:.3g} to {row['high']:.3g}): {row['verdict']}")
    if folder is None:
        return
    words = f"{config.tokens / 1e6:g}M tokens of public-domain books, a model for each method"
    about = describe(LlamaForCausalLM(model_config(longreach.load("nano").tokenizer)), name=model, trained_on=words)
    write(folder, about, told)
    write(folder, about, lengths, "lengths")


def main() -> None:
    """Train each, measure each, compare."""
    args = options(__doc__, METHODS, f"{ROPE}, {RANDOMIZED}, or specs", "2M", "scratch-run")
    config = PretrainConfig(tokens=int(float(args.tokens.rstrip("M")) * 1e6), seq_len=WINDOW, compile=False)
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer = longreach.load("nano").tokenizer
    ids, valid, held_out = books(args.data, tokenizer, config)
    found: dict[str, list[Row]] = {}
    rows = Rows(args.work / "rows.jsonl")
    names = list(args.methods)
    for name in names:
        model = trained(name, tokenizer, ids, config, args.work, held_out)
        found |= losses(model, tokenizer, name, valid, rows)
        if name == "nope":
            found |= losses(tuned(model, ids, spec_of(TUNED, model), TARGET), tokenizer, TUNED, valid, rows)
    show(found)
    if ROPE in names:
        found |= learned_prefix(trained(ROPE, tokenizer, ids, config, args.work, held_out), tokenizer, rows)
    if ROPE in names:
        command = f"python experiments/scratch.py --data FOLDER --tokens {args.tokens}"
        names += [TUNED] if "nope" in names else []
        facts = {"model": MODEL, "window": WINDOW, "data": "held-out books", "command": command}
        publish(evidence(found, [*names, PREFIX], command), by_length(found, names, facts), MODEL, config, args.evidence)


if __name__ == "__main__":
    main()

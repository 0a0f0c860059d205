"""Trains a tiny BART to find facts in inputs of 128 tokens, and has it read inputs of up to 16 times that: cut off, and under unlimiformer.

    python experiments/facts.py [--steps 1500] [--evidence FOLDER]

An input is noise with a few facts in it, each one token that stands for a subject and a value. The decoder is given the subjects, and after
each says its value. In a longer input the same number of facts stands in more noise, so most lie beyond what the model has positions for.
As a fact is one token, this shows that far tokens are found, and not how well a piece is understood without the text around it. It takes a
minute or two on a CPU.
"""

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import BartConfig, BartForConditionalGeneration, set_seed

import longreach
from longreach.attention.cross.unlimiformer import Unlimiformer
from longreach.evaluation.evidence import Number, claim_row, describe, write
from longreach.evaluation.intervals import mean_interval

WINDOW, TIMES = 128, (1, 2, 4, 8, 16)
MODEL = "bart-facts"  # in the docs
TEXTS = 256
SUBJECTS, VALUES, NOISE, FACTS = 8, 8, 32, 4
_SUBJECT = 3  # the first token of each sort
_VALUE = _SUBJECT + SUBJECTS
_FACT = _VALUE + VALUES
_NOISE = _FACT + SUBJECTS * VALUES
_STAGES = ((0.0, 16), (0.4, 64), (0.7, WINDOW))  # from which share of the steps on inputs have which length
METRICS = {
    "found_gain_8x": "share of facts told from inputs of 8 windows, above that from their first window alone",
}


def model_config() -> BartConfig:
    """BART with a layer on each side, of 64 and 4 heads, and positions for one window."""
    return BartConfig(
        vocab_size=_NOISE + NOISE, d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=128, decoder_ffn_dim=128, max_position_embeddings=WINDOW, dropout=0.0, init_std=0.1, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip


def facts(rng: np.random.Generator, texts: int, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs [texts, length] with facts; the subjects that are asked for, their values, and the places of the facts, [texts, FACTS]."""
    ids = rng.integers(_NOISE, _NOISE + NOISE, size=(texts, length))
    subjects = rng.random((texts, SUBJECTS)).argsort(1)[:, :FACTS]
    values = rng.integers(0, VALUES, size=(texts, FACTS))
    places = rng.random((texts, length)).argsort(1)[:, :FACTS]
    ids[np.arange(texts)[:, None], places] = _FACT + subjects * VALUES + values
    return torch.tensor(ids), torch.tensor(_SUBJECT + subjects), torch.tensor(_VALUE + values), torch.tensor(places)


def trained(steps: int) -> BartForConditionalGeneration:
    """The model, trained on inputs up to its window."""
    set_seed(0)
    model, rng = BartForConditionalGeneration(model_config()).train(), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 50, 2 * (1 - step / steps)))
    for step in range(steps):
        length = next(length for since, length in reversed(_STAGES) if step >= since * steps)
        ids, subjects, values, _ = facts(rng, 32, length)
        loss = cross_entropy(model(input_ids=ids, decoder_input_ids=subjects, use_cache=False).logits.flatten(0, 1), values.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: {length} tokens, loss {loss.item():.4f}", flush=True)
    return model.eval()


@torch.no_grad()
def told(model: BartForConditionalGeneration, times: int) -> dict[str, list[float]]:
    """By way to read inputs of `times` windows, and text: the share of its facts that are told rightly; `in reach`: in the first window."""
    ids, subjects, values, places = facts(np.random.default_rng(times), TEXTS, times * WINDOW)

    def right(ids: Tensor) -> list[float]:
        pairs = zip(ids.split(32), subjects.split(32), strict=True)
        answers = torch.cat([model(input_ids=part, decoder_input_ids=asked).logits.argmax(-1) for part, asked in pairs])
        share: list[float] = (answers == values).double().mean(1).tolist()
        return share

    found = {"in reach": (places < WINDOW).double().mean(1).tolist(), "cut off": right(ids[:, :WINDOW])}
    for method in (Unlimiformer(), Unlimiformer(overlap=0), Unlimiformer(budget=16)):
        with longreach.apply(model, method):
            found[method.spec] = right(ids)
    return found


def evidence(found: dict[str, list[float]], command: str) -> list[dict[str, Any]]:
    """A row of the evidence table for each claim."""
    spec = Unlimiformer().spec
    interval = mean_interval([ours - cut for ours, cut in zip(found[spec], found["cut off"], strict=True)])
    setting = f"`{spec}`, trained on {WINDOW}, read to {8 * WINDOW} tokens"
    number = Number(spec=spec, interval=interval, of=f"{TEXTS} texts")
    given = {"model": MODEL, "data": "random facts in noise", "setting": setting, "command": command}
    return [claim_row(Unlimiformer.name(), claim, number, metric=METRICS[claim.metric], **given) for claim in Unlimiformer.info.claims]


def main() -> None:
    """Train, read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500, help="of training (1500)")
    parser.add_argument("--evidence", type=Path, help="folder for the rows of the evidence table (docs/evidence)")
    args = parser.parse_args()
    model = trained(args.steps)
    by_times = {times: told(model, times) for times in TIMES}
    for way in by_times[TIMES[0]]:
        print(f"{way:<24}", *(f"{times}x {fmean(found[way]):.3f}" for times, found in by_times.items()))
    rows = evidence(by_times[8], f"python experiments/facts.py --steps {args.steps}")
    for row in rows:
        print(f"{row['setting']}: {row['metric']} {row['number']:.3g} ({row['low']:.3g} to {row['high']:.3g}): {row['verdict']}")
    if args.evidence:
        write(args.evidence, describe(model, name=MODEL, trained_on=f"{args.steps} steps of 32 inputs with facts to find"), rows)


if __name__ == "__main__":
    main()

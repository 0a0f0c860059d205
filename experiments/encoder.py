"""Trains a small T5 to fill gaps in texts of 128 tokens, and shows what attention alignment does for it on texts 8 times as long.

    python experiments/encoder.py --data FOLDER [--tokens 6M] [--work DIR] [--evidence FOLDER]

FOLDER holds `train/*.txt` and `valid/*.txt` (books). The same gaps, in the middle of each held-out text, are filled with 1, 2, 4 and 8
windows of text around them. A run that was killed goes on when the same command is given again.
"""

import argparse
import math
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from learned_positions import Ids, encode
from nano import read_books
from transformers import PreTrainedTokenizerBase, T5Config, T5ForConditionalGeneration, set_seed

import longreach
from longreach.attention.encoder.attention_alignment import AttentionAlignment
from longreach.cli._progress import BarProgress
from longreach.core.fitting import write_fitted
from longreach.evaluation.evidence import Number, claim_row, describe, write
from longreach.evaluation.intervals import mean_interval
from longreach.evaluation.rows import Rows
from longreach.stretching.fit import fit
from longreach.training.pretrain import PretrainConfig, pretrain

WINDOW, TIMES = 128, (1, 2, 4, 8)
MODEL = "t5-scratch"  # in the docs
TEXTS = 256  # of the longest length
GAPS = (1, 2, 3, 3, 4, 5)  # their lengths in tokens, in an order drawn for each text; a seventh of a window
STRATEGIES = ("max_probability", "entropy")
_PIECE = WINDOW + sum(GAPS) - len(GAPS)  # tokens that leave a window when each gap became one
METRICS = {
    "aligned_gain_8x": "loss of gaps read with 8 windows of text around them, below that of the same model as it is, nats a token",
    "aligned_rise_8x": "loss of gaps read with 8 windows of text around them, above that of the same gaps with one window, nats a token",
}


def model_config(tokenizer: PreTrainedTokenizerBase) -> T5Config:
    """T5 with 4 + 4 layers of 192 and 6 heads; distances past a quarter of the window share a bucket, as T5's do."""
    config = T5Config(
        vocab_size=len(tokenizer) + len(GAPS), d_model=192, d_kv=32, d_ff=512, num_layers=4, num_heads=6, dropout_rate=0.0,
        relative_attention_max_distance=WINDOW // 4, feed_forward_proj="gated-gelu", pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    config.update({"max_position_embeddings": WINDOW, "decoder_start_token_id": tokenizer.pad_token_id})
    return config


def exercise(rng: np.random.Generator, piece: Ids, first_mark: int) -> tuple[Ids, Ids]:
    """(source, answer): the middle window of the piece with gaps, each a mark; the marks, each with the tokens of its gap."""
    lengths = rng.permutation(GAPS)
    before = (len(piece) - _PIECE) // 2
    kept = _PIECE - sum(GAPS)
    cuts = np.sort(rng.choice(np.arange(1, kept), size=len(GAPS), replace=False))  # so that no two gaps touch
    source, answer = list(piece[:before]), []
    place = before
    for number, (cut, length) in enumerate(zip(np.diff([0, *cuts]), lengths, strict=True)):
        source += [*piece[place : place + cut], first_mark + number]
        answer += [first_mark + number, *piece[place + cut : place + cut + length]]
        place += int(cut + length)
    return np.array([*source, *piece[place:]]), np.array(answer)


def batch_of(pairs: list[tuple[Ids, Ids]], start: int) -> dict[str, torch.Tensor]:
    """What the model takes; the answer moved on by one, behind the token that a decoder starts with."""
    sources, answers = (torch.from_numpy(np.stack(each)).long() for each in zip(*pairs, strict=True))
    starts = torch.full_like(answers[:, :1], start)
    return {"input_ids": sources, "decoder_input_ids": torch.cat([starts, answers[:, :-1]], 1), "labels": answers}


def trained(
    tokenizer: PreTrainedTokenizerBase, ids: Ids, config: PretrainConfig, folder: Path, held_out: list[Ids]
) -> T5ForConditionalGeneration:
    """The model, trained on pieces of the ids."""
    set_seed(0)
    model = T5ForConditionalGeneration(model_config(tokenizer))
    mark = len(tokenizer)

    def batch(step: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((0, step))
        starts = rng.integers(0, len(ids) - _PIECE, size=config.batch_size)
        return batch_of([exercise(rng, ids[start : start + _PIECE], mark) for start in starts], model.config.decoder_start_token_id)

    def bits_per_byte(module: Any) -> float:
        size = sum(len(str(tokenizer.decode(text[:_PIECE].tolist())).encode()) for text in held_out[:64]) / 64 / _PIECE
        return fmean(losses(module, held_out[:64], 1, mark)) / math.log(2) / size

    folder.mkdir(parents=True, exist_ok=True)
    pretrain(model, batch, config, folder, evaluate=bits_per_byte)
    return model


@torch.no_grad()
def losses(model: T5ForConditionalGeneration, texts: list[Ids], times: int, mark: int) -> list[float]:
    """By text: nats a token of the gaps in its middle window, with `times` windows of text around and including them."""
    found = []
    length = _PIECE + (times - 1) * WINDOW
    for number, text in enumerate(texts):
        before = (len(text) - length) // 2
        pair = exercise(np.random.default_rng((1, number)), text[before : before + length], mark)
        batch = batch_of([pair], model.config.decoder_start_token_id)
        labels = batch.pop("labels")
        nats = torch.nn.functional.cross_entropy(model(**batch).logits[0].float(), labels[0], reduction="none")
        found.append(float(nats[labels[0] < mark].mean()))  # marks come in their order, which is no feat
    return found


def evidence(found: dict[str, dict[int, list[float]]], command: str) -> list[dict[str, Any]]:
    """A row of the evidence table for each claim and strategy."""
    rows = []
    for claim in AttentionAlignment.info.claims:
        for strategy in STRATEGIES:
            by = found[strategy]
            first, second = (
                (found["stock"][TIMES[-1]], by[TIMES[-1]]) if claim.metric == "aligned_gain_8x" else (by[TIMES[-1]], found["stock"][1])
            )
            interval = mean_interval([a - b for a, b in zip(first, second, strict=True)])
            setting = f"fitted by `strategy={strategy}`, trained on {WINDOW}, read to {TIMES[-1] * WINDOW} tokens"
            facts = {"model": MODEL, "data": "held-out books", "setting": setting, "metric": METRICS[claim.metric], "command": command}
            finding = Number(spec=strategy, interval=interval, of=f"{len(second)} texts")
            rows.append(claim_row(AttentionAlignment.name(), claim, finding, **facts))
    return rows


def main() -> None:
    """Train, fit, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/*.txt and valid/*.txt")
    parser.add_argument("--tokens", default="6M", help="tokens to read in training, in millions (6M)")
    parser.add_argument("--work", type=Path, default=Path("encoder-run"), help="folder for the model and results")
    parser.add_argument("--evidence", type=Path, help="folder for the rows of the evidence table (docs/evidence)")
    args = parser.parse_args()
    config = PretrainConfig(tokens=int(float(args.tokens.rstrip("M")) * 1e6), seq_len=WINDOW, compile=False)
    tokenizer = longreach.load("nano").tokenizer
    ids = encode(tokenizer, read_books(args.data / "train"), 2 * config.tokens)
    valid, longest = "\n\n".join(read_books(args.data / "valid")), _PIECE + (TIMES[-1] - 1) * WINDOW
    if len(tokens := encode(tokenizer, [valid], TEXTS * longest)) < TEXTS * longest:
        sys.exit(f"{args.data / 'valid'} holds too little text: {TEXTS * longest} tokens are needed, and it has {len(tokens)}")
    held_out = np.array_split(tokens, TEXTS)
    model = trained(tokenizer, ids, config, args.work, held_out)
    found = {"stock": {times: losses(model, held_out, times, len(tokenizer)) for times in TIMES}}
    for strategy in STRATEGIES:
        with BarProgress() as progress:
            temperatures = fit(
                model, tokenizer, name=MODEL, method=f"attention_alignment:strategy={strategy},window_size={WINDOW}",
                to=TIMES[-1] * WINDOW, text=valid, rows=Rows(args.work / "rows.jsonl"), progress=progress,
            )  # fmt: skip
        file = args.work / f"{strategy}.json"
        write_fitted(file, temperatures)
        print(strategy, temperatures["fitted"]["temperatures"])
        with longreach.apply(model, f"attention_alignment:file={file}"):
            found[strategy] = {times: losses(model, held_out, times, len(tokenizer)) for times in TIMES}
    for name, by in found.items():
        print(f"{name:<16}", *(f"{times}x {fmean(values):.3f}" for times, values in by.items()))
    told = evidence(found, f"python experiments/encoder.py --data FOLDER --tokens {args.tokens}")
    for row in told:
        print(f"{row['setting']}: {row['metric']} {row['number']:.3g} ({row['low']:.3g} to {row['high']:.3g}): {row['verdict']}")
    if args.evidence:
        trained_on = f"{config.tokens / 1e6:g}M tokens of public-domain books with gaps to fill"
        write(args.evidence, describe(model, name=MODEL, trained_on=trained_on), told)


if __name__ == "__main__":
    main()

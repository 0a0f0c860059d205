"""What documents from the library lose in one prompt, each having been read by itself, and what they save.

    python benchmarks/library.py [--model nano] [--tokens 200] [--texts 8] [--keep]

Two documents, one the continuation of the other in a real text, are followed by the text's own continuation, and by passages of each of
them again, which a model predicts from where they stood before. The loss of these after both documents from the library stands beside the
loss after one reading of the same tokens, and after either document alone. Then the seconds and the bytes.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Cache, PreTrainedModel

import longreach
from longreach.checkpoints.checkpoint import Checkpoint
from longreach.core.errors import LongreachError
from longreach.core.lengths import parse_length
from longreach.data.stdlib import stdlib_text
from longreach.decoding.encoder import Encoder
from longreach.decoding.reading import new_cache, next_token_losses, prefill, read
from longreach.engine.joined import join
from longreach.engine.snapshots import restore, snapshot
from longreach.evaluation.intervals import mean_interval
from longreach.evaluation.text import cut_windows
from longreach.library import Library
from longreach.library.frame import frame
from longreach.reports.library_table import JOINT, PASSAGES, library_table

DOCS = Path(__file__).resolve().parents[1] / "docs"
ROWS = DOCS / "evidence" / "library"
AFTER = 64  # tokens whose loss is measured
LIBRARY = "both, from the library"
Found = dict[tuple[str, str], list[float]]  # (how it was read, passage) -> nats a token, one for each text


@dataclass(frozen=True)
class Text:
    """Two documents, and what is read behind them: by the names in PASSAGES, AFTER ids each."""

    documents: tuple[str, str]
    passages: dict[str, Sequence[int]]


def texts_of(encoder: Encoder, tokens: int, count: int) -> list[Text]:
    """Of the held-out text."""
    found = []
    for window in cut_windows(encoder, stdlib_text("held-out"), 2 * tokens + AFTER, count):
        ids = window.tolist()
        first, second = (encoder.tokenizer.decode(ids[at : at + tokens]) for at in (0, tokens))
        middle = [ids[at : at + AFTER] for at in (2 * tokens, tokens // 2, tokens + tokens // 2)]
        found.append(Text((first, second), dict(zip(PASSAGES, middle, strict=True))))
    return found


def losses(model: PreTrainedModel, cache: Cache, text: Text) -> dict[str, float]:
    """Nats a token of each passage behind what the cache holds."""
    taken, found = snapshot(cache), {}
    for name, passage in text.passages.items():
        restore(cache, taken)
        ids = torch.tensor([list(passage)], device=model.device)
        ((_, logits),) = read(model, ids, cache=cache, logits="all", chunk_size=ids.shape[1])
        found[name] = float(next_token_losses(logits[0, :-1], ids[0, 1:]).mean())
    return found


def read_as_one(model: PreTrainedModel, ids: Sequence[int]) -> tuple[Cache, float]:
    """A cache that holds `ids`, and the seconds that it took."""
    cache, begun = new_cache(model), time.perf_counter()
    prefill(model, torch.tensor([list(ids)], device=model.device), cache=cache)
    return cache, time.perf_counter() - begun


def measure(checkpoint: Checkpoint, text: Text, folder: str, found: Found, costs: dict[str, list[float]]) -> None:
    """Add one text's losses to `found`, and to `costs` seconds, bytes and tokens."""
    model, tokenizer = checkpoint
    library, around = Library(folder), frame(tokenizer, chat=bool(tokenizer.chat_template))
    opening, names = len(around.opening), ("first", "second")
    ids = [around.document(document, "") for document in text.documents]
    for name, document in zip(names, text.documents, strict=True):
        added = library.add(model, tokenizer, document, name=name).manifest
        for what in ("reading", "writing", "bytes", "tokens"):
            costs[what].append(getattr(added, what))
        begun = time.perf_counter()
        library.open(name, model=model, tokenizer=tokenizer)
        costs["loading"].append(time.perf_counter() - begun)
    begun = time.perf_counter()
    both = library.open(*names, model=model, tokenizer=tokenizer)
    costs["both from the library"].append(time.perf_counter() - begun)
    joint, joint_seconds = read_as_one(model, [*ids[0], *ids[1][opening:]])
    costs["both read as one"].append(joint_seconds)
    alone = [library.open(name, model=model, tokenizer=tokenizer) for name in names]
    ways = {JOINT: joint, LIBRARY: both, "the first alone": alone[0], "the second alone": alone[1]}
    for way, cache in ways.items():
        for passage, loss in losses(model, cache, text).items():
            found[way, passage].append(loss)
    kept = join(model, [library.open(name, model=model, tokenizer=tokenizer) for name in names])
    for passage, loss in losses(model, kept, text).items():
        found["both, each with its own opening", passage].append(loss)
    for name in names:
        library.remove(name)


def row_of(name: str, tokens: int, found: Found, costs: dict[str, list[float]]) -> dict[str, object]:
    """What was measured of a model: each loss with its difference to that of one reading and the ends of the interval, and mean costs."""
    losses = []
    for (way, passage), values in found.items():
        gap = mean_interval([one - other for one, other in zip(values, found[JOINT, passage], strict=True)])
        ends = [gap.mean, gap.low, gap.high]
        losses.append([way, passage, *(round(number, 4) for number in (sum(values) / len(values), *ends))])
    mean = {what: round(sum(values) / len(values), 4) for what, values in costs.items()}
    texts = len(found[JOINT, PASSAGES[0]])
    return {"model": name, "tokens": tokens, "texts": texts, "threads": torch.get_num_threads(), "losses": losses, "costs": mean}


def main() -> None:
    """Measure and print, and keep it where that is wanted."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="nano", metavar="FOLDER")
    options.add_argument("--tokens", type=parse_length, default=200, help="of each document [default: 200]")
    options.add_argument("--texts", type=int, default=8, help="of two documents each [default: 8]")
    options.add_argument("--keep", action="store_true", help="write it into docs/evidence/library, of which make docs draws tables")
    args = options.parse_args()
    found, costs = defaultdict(list), defaultdict(list)
    try:
        checkpoint = longreach.load(args.model)
        with tempfile.TemporaryDirectory() as folder:
            for text in texts_of(Encoder(checkpoint.tokenizer), args.tokens, args.texts):
                measure(checkpoint, text, folder, found, costs)
    except LongreachError as error:
        print(f"library: {error}", file=sys.stderr)
        sys.exit(2)
    row = row_of(Path(args.model).name, args.tokens, found, costs)
    print(library_table(row))
    if args.keep:
        ROWS.mkdir(parents=True, exist_ok=True)
        (ROWS / f"{row['model']}.json").write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

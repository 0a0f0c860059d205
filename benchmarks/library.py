"""What documents from the library lose in one prompt, each having been read by itself, and what they save.

    python benchmarks/library.py [--model nano] [--tokens 200] [--texts 4]

Two documents, one the continuation of the other in a real text, are followed by the text's own continuation, and by passages of each of
them again, which a model predicts from where they stood before. The loss of these after both documents from the library stands beside the
loss after one reading of the same tokens, and after either document alone. Then the seconds and the bytes.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import Cache, PreTrainedModel

import longreach
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

AFTER = 64  # tokens whose loss is measured
JOINT = "both, read as one"
LIBRARY = "both, from the library"
PASSAGES = ("what comes next", "a passage of the first", "a passage of the second")


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


def measure(checkpoint: tuple[PreTrainedModel, object], text: Text, folder: str, found: dict, seconds: dict) -> None:
    """Add one text's numbers to `found` (how it was read, passage) and `seconds`."""
    model, tokenizer = checkpoint
    library, around = Library(folder), frame(tokenizer, chat=bool(tokenizer.chat_template))
    opening, names = len(around.opening), ("first", "second")
    ids = [around.document(document, "") for document in text.documents]
    for name, document in zip(names, text.documents, strict=True):
        added = library.add(model, tokenizer, document, name=name).manifest
        for what in ("reading", "writing", "bytes", "tokens"):
            seconds[what].append(getattr(added, what))
        begun = time.perf_counter()
        library.open(name, model=model, tokenizer=tokenizer)
        seconds["loading"].append(time.perf_counter() - begun)
    begun = time.perf_counter()
    both = library.open(*names, model=model, tokenizer=tokenizer)
    seconds["both from the library"].append(time.perf_counter() - begun)
    joint, joint_seconds = read_as_one(model, [*ids[0], *ids[1][opening:]])
    seconds["both read as one"].append(joint_seconds)
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


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="nano", metavar="FOLDER")
    options.add_argument("--tokens", type=parse_length, default=200, help="of each document [default: 200]")
    options.add_argument("--texts", type=int, default=4, help="of two documents each [default: 4]")
    args = options.parse_args()
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    try:
        checkpoint = longreach.load(args.model)
        with tempfile.TemporaryDirectory() as folder:
            for text in texts_of(Encoder(checkpoint.tokenizer), args.tokens, args.texts):
                measure(checkpoint, text, folder, found, seconds)
    except LongreachError as error:
        print(f"library: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"| nats a token, {args.texts} texts | {' | '.join(PASSAGES)} |\n| --- {'| --- ' * len(PASSAGES)}|")
    for way in dict.fromkeys(way for way, _ in found):
        cells = []
        for passage in PASSAGES:
            more = [one - other for one, other in zip(found[way, passage], found[JOINT, passage], strict=True)]
            gap = mean_interval(more)
            beside = "" if way == JOINT else f" ({gap.mean:+.3f}, {gap.low:+.3f} to {gap.high:+.3f})"
            cells.append(f"{mean_interval(found[way, passage]).mean:.3f}{beside}")
        print(f"| {way} | {' | '.join(cells)} |")
    each = {name: sum(values) / len(values) for name, values in seconds.items()}
    first = (
        int((each["reading"] + each["writing"]) / (each["reading"] - each["loading"])) + 1 if each["reading"] > each["loading"] else None
    )
    print(
        f"\na document of {each['tokens']:.0f} tokens: reading {each['reading']:.2f} s, writing {each['writing']:.2f} s, loading "
        f"{each['loading']:.2f} s, {each['bytes'] / 1e6:.1f} MB ({each['bytes'] / each['tokens']:,.0f} bytes a token); it pays from question "
        f"{first} on"
        f"\nboth in one prompt: {each['both from the library']:.2f} s from the library, {each['both read as one']:.2f} s read as one"
    )


if __name__ == "__main__":
    main()

"""What is lost when a prompt's cache is made smaller, or less of it is read; draws docs/eviction.md from what was measured so far.

    python benchmarks/eviction.py [MODEL] [--name NAME] [--length 8192] [--shares 0.5,0.25,0.125] [--only METHOD]... [--texts 4]
        [--heads FILE]

A text with five facts is read once under each method and budget, and the cache is kept. From it, each fact is asked for twice: by the
question that ends the prompt, before the cut, and by a second question after it, when the cache was cut for another one. An answer counts
where greedy decoding writes the whole number. Loss is that of the text's next tokens, after a cut that no question came before.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

import longreach
from longreach.core.errors import LongreachError
from longreach.core.lengths import parse_length
from longreach.data.stdlib import stdlib_text
from longreach.decoding.encoder import Encoder
from longreach.decoding.reading import new_cache, next_token_losses, prefill, read
from longreach.engine.prompt import prompt_end
from longreach.evaluation.tasks.retrieval._retrieval import Frame
from longreach.evaluation.tasks.retrieval.needle import Needle
from longreach.planning.holdings import holdings
from longreach.reports.eviction_page import AFTER, eviction_page

DOCS = Path(__file__).resolve().parents[1] / "docs"
ROWS, PAGE = DOCS / "evidence" / "eviction", DOCS / "eviction.md"
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
MEMORIES = ("fifo", "lra", "lfa")
DRAWN = 64  # blocks of the text that `probabilistic_blocks` draws from
FULL = 1 / 3  # share of the layers in which `longgen` sees everything


def specs(share: float, length: int, heads: Path | None) -> dict[str, str]:
    """Name -> spec of every method at a share of the prompt's tokens: that are kept, or read; of `duo`, of the heads in its file."""
    budget = round(share * length)
    found = {name: f"{name}:budget={budget}" for name in ("snapkv", "h2o", "tova", "expected_attention", "keydiff", "knorm", *MEMORIES)}
    cut = {"sinks": f"sinks:num_sinks=4,window_size={budget - 4}", **found, "lagkv": f"lagkv:ratio={share:g}"}
    divided = {name: f"snapkv:budget={budget}+{name}" for name in ("ada", "pyramid")}
    block, quarter = length // 32, budget // 4
    found = (
        cut
        | divided
        | {
            "sirllm": f"sirllm:budget={budget}",
            "probabilistic_blocks": f"probabilistic_blocks:block_size={length // DRAWN},near={_near(share)}",
            "quest": f"quest:budget={budget}",
            "squeezed": f"squeezed:keep={share:g}",
            "hip": f"hip:budget={budget - budget % 2}",
            "hyper": f"hyper:exact={4 * quarter},block_size={quarter}",
            "infllm": f"infllm:block_size={block},num_blocks={max(1, budget // 2 // block)},local_window={budget // 2},shared={block}",
        }
    )
    if share > FULL:  # the rest is what sparse layers see
        found["longgen"] = f"longgen:window_size={round((share - FULL) / (1 - FULL) * length)}"
    return found if heads is None else found | {"duo": f"duo:file={heads},retrieval={share:g},num_sinks=4,window_size={length // 16}"}


def _near(share: float) -> int:
    """How many near blocks `probabilistic_blocks` sees where the last query sees a share of all."""
    fitting = [near for near in range(1, DRAWN + 1) if near * (1 + math.log(DRAWN / near)) <= share * DRAWN]
    return max(fitting, default=1)


FORMS = {name: name for name in ("think", "quantised", "staircase")}  # keep every token, in fewer bytes


@dataclass
class Text:
    """A text with its facts. Args: ids: [T], facts included. after: the text's next tokens. frames: of the facts, all their questions
    equally long.
    """

    ids: list[int]
    after: list[int]
    frames: list[Frame]

    @property
    def asked(self) -> int:
        """Tokens of a question."""
        return len(self.frames[0].question)


def texts(encoder: Encoder, length: int, count: int) -> Iterator[Text]:
    """Texts from different places of the held-out standard library."""
    filler = np.array_split(np.asarray(encoder.encode(stdlib_text("held-out"))), count)
    for number, part in enumerate(filler):
        frames = _frames(encoder, number)
        room = length - len(encoder.prefix) - sum(len(frame.fact) for frame in frames)
        if len(part) < room + AFTER:
            raise LongreachError(f"the text has {len(part)} tokens for each of {count} texts, not {room + AFTER}; give fewer --texts")
        ids, begin = list(encoder.prefix), 0
        for depth, frame in zip(DEPTHS, frames, strict=True):
            place = int(depth * room)
            end = next((i for i in range(place, room) if encoder.breaks(int(part[i - 1]), int(part[i]))), place)
            ids += [*part[begin:end].tolist(), *frame.fact]
            begin = end
        yield Text(ids=[*ids, *part[begin:room].tolist()], after=part[room : room + AFTER].tolist(), frames=frames)


def _frames(encoder: Encoder, seed: int) -> list[Frame]:
    """One for each depth, about different cities, with questions of one length."""
    found: dict[int, dict[tuple[int, ...], Frame]] = {}
    for sample in range(1000):
        frame = Needle().frame(encoder, seed, sample)
        alike = found.setdefault(len(frame.question), {})
        alike.setdefault(tuple(frame.question), frame)
        if len(alike) == len(DEPTHS):
            return list(alike.values())
    raise LongreachError("the tokenizer has no five cities of one length")


@dataclass
class Measured:
    """Of one text under one method: answers to first and second questions, loss, bytes of the cache after the cut, seconds of reading."""

    first: list[bool]
    second: list[bool]
    loss: float
    bytes: int
    seconds: float


@torch.no_grad()
def measure(model: PreTrainedModel, spec: str, text: Text) -> Measured:
    """Read the text under a method, and ask."""
    with longreach.apply(model, spec, warn=False), prompt_end(len(text.ids) + text.asked):
        cache = new_cache(model)
        began = time.process_time()
        prefill(model, torch.tensor([text.ids], device=model.device), cache=cache)
        seconds = time.process_time() - began
        taken = longreach.snapshot(cache)
        first, second = [], []
        for number, frame in enumerate(text.frames):
            longreach.restore(cache, taken)
            first.append(_writes(model, cache, frame))
            second.append(_writes(model, cache, text.frames[(number + 2) % len(text.frames)]))
        size = int(holdings(cache).kept)
        longreach.restore(cache, taken)
        losses = _losses(model, cache, text.after)[text.asked :]  # those before belong to the prompt
        return Measured(first=first, second=second, loss=float(losses.mean()), bytes=size, seconds=seconds)


def _forward(model: PreTrainedModel, cache: Cache, ids: list[int]) -> Tensor:
    """[n, V] logits."""
    for _, logits in read(model, torch.tensor([ids], device=model.device), cache=cache, chunk_size=len(ids), logits="all"):
        return logits[0]
    raise LongreachError("nothing to read")


def _writes(model: PreTrainedModel, cache: Cache, frame: Frame) -> bool:
    """Whether greedy decoding writes the number; the cache then holds question and answer."""
    right = frame.answers[frame.right]
    logits = _forward(model, cache, [*frame.question, *right])[len(frame.question) - 1 : -1]
    return logits.argmax(-1).tolist() == list(right)


def _losses(model: PreTrainedModel, cache: Cache, after: list[int]) -> Tensor:
    """[n - 1] of the tokens, but for the first."""
    logits = _forward(model, cache, after)
    return next_token_losses(logits[:-1], torch.tensor(after[1:], device=logits.device)).double()


def compare(args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """One row for each method and share, the whole cache first."""
    model, tokenizer = longreach.load(args.model)
    given = list(texts(Encoder(tokenizer), args.length, args.texts))
    by_share = {(name, share): spec for share in args.shares for name, spec in specs(share, args.length, args.heads).items()}
    runs = {(name, None): spec for name, spec in FORMS.items()} | by_share
    wanted = {key: spec for key, spec in runs.items() if not args.only or key[0] in args.only}
    whole: list[Measured] = []
    for (name, share), spec in {("full", None): "full", **wanted}.items():
        found = [measure(model, spec, text) for text in given]
        whole = whole or found
        rises = [one.loss - other.loss for one, other in zip(found, whole, strict=True)]
        row = {
            "model": args.name or Path(args.model).name, "method": name, "share": share, "spec": spec, "length": args.length,
            "first": [sum(sum(one.first) for one in found), len(given) * len(DEPTHS)],
            "second": [sum(sum(one.second) for one in found), len(given) * len(DEPTHS)],
            "rises": rises,
            "bytes": sum(one.bytes for one in found) / sum(one.bytes for one in whole),
            "reading": sum(one.seconds for one in found) / sum(one.seconds for one in whole),
        }  # fmt: skip
        print(name, share, row["first"], row["second"], f"{np.mean(rises):+.3f} {row['bytes']:.2f} {row['reading']:.2f}", flush=True)
        yield row


def main() -> None:
    """Measure, keep the rows, and draw the page."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", nargs="?", default="nano")
    options.add_argument("--name", help="what the page calls the model [default: the last part of MODEL]")
    options.add_argument("--length", default="8k", help="tokens of a text [default: 8k]")
    options.add_argument("--shares", default="0.5,0.25,0.125", help="budgets, as shares of the text [default: 0.5,0.25,0.125]")
    options.add_argument("--only", action="append", default=[], metavar="METHOD", help="may be repeated [default: all]")
    options.add_argument("--texts", type=int, default=4, help="[default: 4]")
    options.add_argument("--heads", type=Path, metavar="FILE", help="of `longreach heads MODEL --save FILE`, for duo")
    args = options.parse_args()
    ROWS.mkdir(parents=True, exist_ok=True)
    try:
        args.length, args.shares = parse_length(args.length), [float(one) for one in args.shares.split(",")]
        path = ROWS / f"{args.name or Path(args.model).name}-{args.length}.json"
        for row in compare(args):
            known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
            kept = [each for each in known if each["spec"] != row["spec"]]
            path.write_text(json.dumps([*kept, row], indent=1) + "\n", encoding="utf-8")
            PAGE.write_text(eviction_page(ROWS), encoding="utf-8")
    except LongreachError as error:
        print(f"eviction: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

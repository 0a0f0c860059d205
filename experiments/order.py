"""Shows whether a model's answer hangs on the order of the facts in its prompt, as it is and under set_based, and what that costs.

    python experiments/order.py [--model nano] [--name NAME] [--prompts 40] [--evidence FOLDER]

A prompt states the magic numbers of four cities, a line each, and asks for one of them. The facts are read in four orders, the rotations
that put the wanted one first, second, third and last; under set_based each fact is a part of one set. An answer is right where greedy
decoding writes the whole number. The lowest share of four orders is low by chance, too, which favours the method. A minute or two on a CPU.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import longreach
from longreach.attention.placement.set_based import SetBased
from longreach.checkpoints.checkpoint import find_checkpoint
from longreach.core.errors import InputError, LongreachError
from longreach.decoding.encoder import Encoder
from longreach.decoding.reading import new_cache, prefill, read
from longreach.decoding.sets import read_sets
from longreach.decoding.writing import read_prompt
from longreach.engine.sets import cache_for_sets
from longreach.evaluation.evidence import Number, claim_row, counted, describe, write
from longreach.evaluation.intervals import Interval, paired_share_interval
from longreach.evaluation.tasks.retrieval.needle import Needle

FACTS = 4  # of a prompt, and orders of them
METRICS = {
    "order_difference": "most that the order of the facts changes the log-probability of the right answer, nats",
    "right_above_lowest": "share of right answers, above that of the model as it is under the order that it answers worst",
}
_HEAD = "Here are some special magic numbers.\n"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a prompt states, and asks for. Args: stated: a line each; the first is asked for. asked: ends before the answer."""

    stated: tuple[str, ...]
    asked: str
    answer: str

    def prompt(self, place: int, method: SetBased | None = None) -> str:
        """With the wanted fact at that place, from 0 on. Args: method: whose marks make the facts a set."""
        first = len(self.stated) - place
        stated = (*self.stated[first:], *self.stated[:first])
        marked = "".join(stated) if method is None else f"{method.open}{method.between.join(stated)}{method.close}"
        return f"{_HEAD}{marked}{self.asked}"


@dataclass(frozen=True, kw_only=True)
class Told:
    """How a prompt is answered. Args: chance: log-probability of the right answer, nats. right: whether greedy decoding writes it."""

    chance: float
    right: bool


def facts(number: int) -> Facts:
    """Of the prompt with that number: cities that differ, and numbers of five digits."""
    rng = np.random.default_rng(number)
    found: dict[str, tuple[str, str]] = {}
    while len(found) < FACTS:
        value = str(rng.integers(10_000, 100_000))
        wording = Needle().wording(rng, value)
        found.setdefault(wording.question.strip(), (f"{wording.fact.strip()}\n", value))
    (asked, (_, answer)), *_ = found.items()
    return Facts(stated=tuple(stated for stated, _ in found.values()), asked=asked, answer=answer)


def told(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> Told:
    """How the model, under what is applied to it, goes on after the prompt."""
    ids, sets = read_prompt(model, tokenizer, prompt, chat=False, method=None)
    cache = cache_for_sets() if sets else new_cache(model)
    first = read_sets(ids, sets, cache, partial(prefill, model, cache=cache))
    wanted = torch.tensor(Encoder(tokenizer).encode_inside(f" {answer}"))
    rest = [logits[0] for _, logits in read(model, wanted[None, :-1], cache=cache, logits="all")]
    chances = torch.cat([first, *rest]).double().log_softmax(-1)
    chance, right = chances.gather(1, wanted[:, None]).sum(), (chances.argmax(-1) == wanted).all()
    return Told(chance=float(chance), right=bool(right))


def by_order(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: int, method: SetBased | None) -> list[list[Told]]:
    """By order, and prompt: how it is answered. Args: method: that the model is under, if any."""
    asked = list(map(facts, range(prompts)))
    with longreach.apply(model, method or ()):
        return [[told(model, tokenizer, each.prompt(place, method), each.answer) for each in asked] for place in range(FACTS)]


def difference(orders: Sequence[Sequence[Told]]) -> float:
    """The most that an order changes of a prompt's log-probability."""
    by_prompt = [[each.chance for each in same] for same in zip(*orders, strict=True)]
    return max(max(chances) - min(chances) for chances in by_prompt)


def shares(orders: Sequence[Sequence[Told]]) -> list[float]:
    """By order: the share of right answers."""
    return [fmean(each.right for each in order) for order in orders]


def evidence(plain: Sequence[Sequence[Told]], ours: Sequence[Sequence[Told]], **given: str) -> list[dict[str, Any]]:
    """A row of the evidence table for each claim. Args: plain, ours: by order, of the model as it is and under the method."""
    most, all_shares = difference(ours), shares(plain)
    lowest = min(plain, key=lambda order: sum(each.right for each in order))
    pairs = [(one.right, other.right) for one, other in zip(ours[0], lowest, strict=True)]
    numbers = {
        "order_difference": (Interval(most, most, most), f"the model as it is: {difference(plain):.3g}"),
        "right_above_lowest": (
            paired_share_interval(pairs),
            f"right: {shares(ours)[0]:.3g}; the model as it is: {min(all_shares):.3g} to {max(all_shares):.3g}",
        ),
    }
    rows = []
    for claim in SetBased.info.claims:
        interval, beside = numbers[claim.metric]
        spec = SetBased().spec
        setting = f"`{spec}`, {FACTS} facts in {FACTS} orders ({beside})"
        number = Number(spec=spec, interval=interval, of=counted(pairs, "prompt"))
        rows.append(claim_row(SetBased.name(), claim, number, setting=setting, metric=METRICS[claim.metric], **given))
    return rows


def main() -> None:
    """Ask, compare, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="a checkpoint's folder, a hub id, or nano (default)")
    parser.add_argument("--name", help="what the docs call it [default: the last part of --model]")
    parser.add_argument("--prompts", type=int, default=40, help="with facts of their own, each in all orders [default: 40]")
    parser.add_argument("--evidence", type=Path, help="folder for the rows of the evidence table (docs/evidence)")
    args = parser.parse_args()
    name = args.name or Path(args.model).name
    of = f"FOLDER --name {name}" if Path(args.model).is_dir() else args.model
    command = f"python experiments/order.py --model {of} --prompts {args.prompts}"
    try:
        if args.prompts < 1:
            raise InputError(f"--prompts {args.prompts} must be at least 1")
        model, tokenizer = longreach.load(args.model)
        plain, ours = (by_order(model, tokenizer, args.prompts, method) for method in (None, SetBased()))
        for way, orders in (("the model as it is", plain), (SetBased().spec, ours)):
            print(f"{way:<20} right by order", *(f"{share:.3f}" for share in shares(orders)), f"difference {difference(orders):.3g} nats")
        rows = evidence(plain, ours, model=name, data="made-up facts", command=command)
        for row in rows:
            print(f"{row['metric']}: {row['number']:.3g} ({row['low']:.3g} to {row['high']:.3g}): {row['verdict']}")
        if args.evidence:
            about = describe(model, name=name, card=find_checkpoint(args.model) / "README.md")
            write(args.evidence, about, rows, file=f"{name}-order")
    except LongreachError as error:
        sys.exit(f"order: {error}")


if __name__ == "__main__":
    main()

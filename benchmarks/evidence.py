"""Holds every method to its paper's claim on a model, and writes the rows of the evidence table.

    python benchmarks/evidence.py [--model nano] [--to 4096]

A method names its claims in its own file (`MethodInfo.claims`); METRICS says how each number is taken. Rows go to
docs/evidence/MODEL.jsonl; `make docs` draws the table. What was measured is kept in --rows, so that a second run only adds.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

import longreach
from longreach.core import registry
from longreach.core.lengths import parse_length
from longreach.core.method import Claim, Method
from longreach.core.spec import parse
from longreach.data.stdlib import stdlib_text
from longreach.evaluation.choice import Standing
from longreach.evaluation.rows import Rows
from longreach.evaluation.stretch import stretch

DATA = "held-out standard library"
SAMPLES = 2  # prompts of each depth and length
FOLDER = Path(__file__).resolve().parents[1] / "docs" / "evidence"


@dataclass(frozen=True)
class Bench:
    """What the numbers are taken from. Args: standings: by spec; "" is the model as it is."""

    model: PreTrainedModel
    standings: dict[str, Standing]


Number = tuple[str, float]  # the spec it was taken of, and the number
METRICS: dict[str, tuple[str, Callable[[str, Bench], Number]]] = {}


def metric(name: str, meaning: str) -> Callable[[Callable[[str, Bench], Number]], Callable[[str, Bench], Number]]:
    """Register a metric: a function of a method's name."""

    def keep(function: Callable[[str, Bench], Number]) -> Callable[[str, Bench], Number]:
        METRICS[name] = (meaning, function)
        return function

    return keep


def _settings(name: str, bench: Bench) -> list[Standing]:
    """What was measured of a method by itself."""
    return [standing for spec, standing in bench.standings.items() if spec and [m.name() for m in parse(spec)] == [name]]


@metric("rise", "loss beyond the window above that inside, nats a token")
def _rise(name: str, bench: Bench) -> Number:
    best = min(_settings(name, bench), key=lambda one: one.rise.mean)
    return best.method, best.rise.mean


@metric("rise_share", "the rise of the loss beyond the window, as a share of the plain model's")
def _rise_share(name: str, bench: Bench) -> Number:
    spec, rise = _rise(name, bench)
    return spec, rise / bench.standings[""].rise.mean


@metric("retrieval", "share of needles found at the target length")
def _retrieval(name: str, bench: Bench) -> Number:
    best = max(_settings(name, bench), key=lambda one: one.retrieval.mean if one.retrieval else 0.0)
    return best.method, best.retrieval.mean if best.retrieval else 0.0


@metric("retrieval_gain", "share of needles found at the target length, above that of the method it is stacked on")
def _retrieval_gain(name: str, bench: Bench) -> Number:
    gains = {}
    for spec, standing in bench.standings.items():
        stack = parse(spec) if spec else ()
        if len(stack) > 1 and stack[-1].name() == name:
            alone = bench.standings["+".join(method.spec for method in stack[:-1])]
            gains[spec] = (standing.retrieval.mean if standing.retrieval else 0.0) - (alone.retrieval.mean if alone.retrieval else 0.0)
    spec = max(gains, key=lambda each: gains[each])
    return spec, gains[spec]


@metric("logit_difference", "largest difference of a logit from the model as it is, token by token over its window")
def _logit_difference(name: str, bench: Bench) -> Number:
    window = bench.model.config.max_position_embeddings
    ids = torch.randint(3, bench.model.config.vocab_size, (1, window), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stock = bench.model(ids, use_cache=False).logits
        with longreach.apply(bench.model, name):
            cache, parts = None, []
            for token in ids.split(1, dim=1):
                out = bench.model(token, past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                parts.append(out.logits)
    return name, float((torch.cat(parts, 1) - stock).abs().max())


def evidence(name: str, to: int, rows: Rows) -> list[dict[str, object]]:
    """One row for each claim of each method that changes how a model reads."""
    model, tokenizer = longreach.load(name)
    common = {"name": name, "to": to, "text": stdlib_text("held-out"), "finalists": 99, "samples": SAMPLES, "rows": rows}
    alone = stretch(model, tokenizer, methods=("auto",), **common)
    best = max((one for one in alone.standings if one.method and not one.forgets), key=lambda one: (one.retrieval or one.rise).mean)
    wrappers = [wrapper for each in registry.names() for wrapper in registry.get(each).suggest_on(parse(best.method)[0])]
    stacked = stretch(model, tokenizer, methods=tuple(f"{best.method}+{wrapper.spec}" for wrapper in wrappers), **common)
    bench = Bench(model, {one.method: one for one in (*alone.standings, *stacked.standings)})
    command = f"python benchmarks/evidence.py --model {name} --to {to}"
    found = []
    for each in registry.names():
        method = registry.get(each)
        found += [_row(method, claim, bench, name, alone.trained_window, to, command) for claim in method.info.claims]
    return found


def _row(method: type[Method], claim: Claim, bench: Bench, model: str, window: int, to: int, command: str) -> dict[str, object]:
    meaning, take = METRICS[claim.metric]
    spec, number = take(method.name(), bench)
    return {
        "method": method.name(),
        "model": model,
        "data": DATA,
        "setting": f"`{spec}`, {window} to {to} tokens",
        "metric": meaning,
        "number": number,
        "paper_claim": claim.text,
        "delivers": claim.holds(number),
        "command": command,
    }


def main() -> None:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--to", type=parse_length, default=4096)
    parser.add_argument("--rows", type=Path, default=Path("longreach-rows/nano.jsonl"))
    args = parser.parse_args()
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    found = evidence(args.model, args.to, Rows(args.rows))
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{Path(args.model).name}.jsonl"
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    partial.replace(path)
    for row in found:
        print(f"{row['method']}: {row['metric']} {row['number']:.3g} ({'holds' if row['delivers'] else 'does not hold'})")


if __name__ == "__main__":
    main()

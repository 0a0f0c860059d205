"""Holds every method to its paper's claim on a model, and writes the rows of the evidence table.

    python benchmarks/evidence.py [--model nano] [--to 4096] [--fitted FILE]...

A method names its claims in its own file (`MethodInfo.claims`); METRICS says how each number is taken. A method that has to be fitted takes
part with the file that `longreach fit` wrote for the model. Rows go to docs/evidence/MODEL.jsonl; `make docs` draws the table. What was
measured is kept in --rows, so that a second run only adds.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

import longreach
from longreach.core import registry
from longreach.core.fitting import FittedFile
from longreach.core.lengths import parse_length
from longreach.core.method import Claim, Method
from longreach.core.spec import parse, unparse
from longreach.data.stdlib import stdlib_files, stdlib_text
from longreach.evaluation.choice import Standing
from longreach.evaluation.rows import Rows
from longreach.evaluation.stretch import stretch
from longreach.evaluation.tasks.loss import token_losses
from longreach.evaluation.text import Encoder, cut_windows
from longreach.models._text import tokenizer_of
from longreach.models.reading import CHUNK
from longreach.models.window import trained_window

DATA = "held-out standard library"
_CODE_TEXTS, _CODE_WINDOWS = 4, 8  # texts of source code to read, and how many trained windows of each
SAMPLES = 2  # prompts of each depth and length
FOLDER = Path(__file__).resolve().parents[1] / "docs" / "evidence"


@dataclass(frozen=True)
class Bench:
    """What the numbers are taken from. Args: standings: by spec; "" is the model as it is. fitted: method -> its file for the model."""

    model: PreTrainedModel
    standings: dict[str, Standing]
    fitted: dict[str, FittedFile]


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


def _stacked(name: str, bench: Bench) -> dict[str, tuple[Standing, Standing]]:
    """By spec: what was measured of a method on top of another one, and of that one alone."""
    found = {}
    for spec, standing in bench.standings.items():
        stack = parse(spec) if spec else ()
        if len(stack) > 1 and stack[-1].name() == name:
            found[spec] = (standing, bench.standings[unparse(stack[:-1])])
    return found


def _best(gains: dict[str, float]) -> Number:
    spec = max(gains, key=lambda each: gains[each])
    return spec, gains[spec]


@metric("retrieval_gain", "share of needles found at the target length, above that of the method it is stacked on")
def _retrieval_gain(name: str, bench: Bench) -> Number:
    found = {spec: [one.retrieval.mean if one.retrieval else 0.0 for one in pair] for spec, pair in _stacked(name, bench).items()}
    return _best({spec: both - alone for spec, (both, alone) in found.items()})


@metric("rise_gain", "rise of the loss beyond the window, below that of the method it is stacked on, nats a token")
def _rise_gain(name: str, bench: Bench) -> Number:
    return _best({spec: alone.rise.mean - both.rise.mean for spec, (both, alone) in _stacked(name, bench).items()})


@metric("over_yarn", "loss beyond the window above YaRN's, on text that nothing was fitted on, nats a token")
def _over_yarn(name: str, bench: Bench) -> Number:
    file = bench.fitted[name]
    beyond = {one["method"]: one["beyond"] for one in file.data["results"]}
    (yarn,) = (loss for spec, loss in beyond.items() if spec.startswith("yarn:"))
    return f"{name}:file={Path(file.name).name}", beyond[name] - yarn


@metric("code_rise_share", "the rise of the loss beyond the window on Python source alone, as a share of the plain model's")
def _code_rise_share(name: str, bench: Bench) -> Number:
    window, tokenizer = trained_window(bench.model.config), tokenizer_of(bench.model)
    source = "\n\n".join(path.read_text(encoding="utf-8", errors="replace") for path in stdlib_files("held-out"))
    encoder = Encoder(tokenizer)
    ids = torch.from_numpy(np.stack(cut_windows(encoder, source, _CODE_WINDOWS * window, _CODE_TEXTS))).long()
    rises = []
    for method in ("", name):
        with longreach.apply(bench.model, method):
            losses = token_losses(bench.model, ids, chunk_size=CHUNK)
        rises.append(float(losses[:, window - 1 :].mean() - losses[:, : window - 1].mean()))
    return name, rises[1] / rises[0]


@metric("logit_difference", "largest difference of a logit from the model as it is, token by token over its window")
def _logit_difference(name: str, bench: Bench) -> Number:
    ids = _window_of_ids(bench)
    with torch.no_grad():
        stock = bench.model(ids, use_cache=False).logits
    with longreach.apply(bench.model, name):
        return name, float((_token_by_token(bench, ids) - stock).abs().max())


@metric("inside_difference", "stacked on yarn, largest difference of a logit from the model as it is, both token by token over its window")
def _inside_difference(name: str, bench: Bench) -> Number:
    spec, ids = f"yarn:factor=8+{name}", _window_of_ids(bench)
    stock = _token_by_token(bench, ids)
    with longreach.apply(bench.model, spec):
        return spec, float((_token_by_token(bench, ids) - stock).abs().max())


def _window_of_ids(bench: Bench) -> torch.Tensor:
    config = bench.model.config
    return torch.randint(3, config.vocab_size, (1, config.max_position_embeddings), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _token_by_token(bench: Bench, ids: torch.Tensor) -> torch.Tensor:
    cache, parts = None, []
    for token in ids.split(1, dim=1):
        out = bench.model(token, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        parts.append(out.logits)
    return torch.cat(parts, 1)


def evidence(name: str, to: int, rows: Rows, files: Sequence[Path] = ()) -> list[dict[str, object]]:
    """One row for each claim of each method that changes how a model reads and can be applied to this one."""
    model, tokenizer = longreach.load(name)
    common = {"name": name, "to": to, "text": stdlib_text("held-out"), "finalists": 99, "samples": SAMPLES, "rows": rows}
    alone = stretch(model, tokenizer, methods=("auto",), **common)
    ranked = [one for one in alone.standings if one.method and not one.forgets]
    ranked.sort(key=lambda one: (one.retrieval or one.rise).mean, reverse=True)
    stacked = stretch(model, tokenizer, methods=_stacks([one.method for one in ranked]), **common)
    fitted = {file.data["method"]: file for file in (FittedFile(str(path)) for path in files)}
    bench = Bench(model, {one.method: one for one in (*alone.standings, *stacked.standings)}, fitted)
    command = " ".join(["python benchmarks/evidence.py", f"--model {name} --to {to}", *(f"--fitted {path}" for path in files)])
    found = []
    refused = {method.name() for spec in alone.refused if spec for method in parse(spec)}
    for each in registry.names():
        if each in refused:
            continue
        method = registry.get(each)
        if method.info.fitted and each not in fitted:
            print(f"{each}: no --fitted file, so its claims are left out")
            continue
        found += [_row(method, claim, bench, name, alone.trained_window, to, command) for claim in method.info.claims]
    return found


def _stacks(ranked: list[str]) -> tuple[str, ...]:
    """Every method that improves others, on the best one that it improves."""
    found = []
    for each in registry.names():
        improved = ((spec, registry.get(each).suggest_on(parse(spec)[0])) for spec in ranked)
        spec, wrappers = next(((spec, wrappers) for spec, wrappers in improved if wrappers), ("", ()))
        found += [f"{spec}+{wrapper.spec}" for wrapper in wrappers]
    return tuple(found)


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
    parser.add_argument(
        "--fitted", type=Path, action="append", default=[], help="a file of `longreach fit MODEL`, for a method to be fitted"
    )
    parser.add_argument("--rows", type=Path, default=Path("longreach-rows/nano.jsonl"))
    args = parser.parse_args()
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    found = evidence(args.model, args.to, Rows(args.rows), args.fitted)
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{Path(args.model).name}.jsonl"
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    partial.replace(path)
    for row in found:
        print(f"{row['method']}: {row['metric']} {row['number']:.3g} ({'holds' if row['delivers'] else 'does not hold'})")


if __name__ == "__main__":
    main()

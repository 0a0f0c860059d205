"""Holds every method to its paper's claim on a model, and writes the rows of the evidence table.

    python benchmarks/evidence.py [--model FOLDER --name NAME] [--to 4096] [--fitted FILE]...

A method names its claims in its own file (`MethodInfo.claims`); METRICS says how each number is taken, with its interval. A method that
has to be fitted takes part with the file that `longreach fit` wrote for the model. Rows go to docs/evidence/NAME.jsonl; `make docs` draws
the table. What was measured is kept in --rows, so that a second run only adds.
"""

import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from _subject import Given, given, parser, texts_of

import longreach
from longreach.cli._progress import BarProgress
from longreach.core import registry
from longreach.core.errors import InputError, LongreachError, SpecError
from longreach.core.fitting import FittedFile
from longreach.core.spec import make, parse
from longreach.data.stdlib import stdlib_files
from longreach.decoding.reading import CHUNK, token_losses
from longreach.engine.cache_argument import cache_argument, cache_of
from longreach.evaluation.evidence import Finding, Subject, claim_row, counted, found_share, write
from longreach.evaluation.intervals import Interval, mean_interval, paired_share_interval, ratio_interval
from longreach.evaluation.measure import fingerprint
from longreach.evaluation.text import Encoder, cut_windows
from longreach.stretching.candidates import Candidate, applicable

SAMPLES = 8  # prompts of each depth: with fewer than 35 in all, no share can be told to be at least 0.9
_CODE_TEXTS, _CODE_WINDOWS = 4, 8  # texts of source code to read, and how many trained windows of each
RECALLS = 0.5  # share of needles that a model has to find inside its window, for retrieval beyond to say anything
RANKING = 2  # as many tell which setting of a method is its best


class LeftOut(LongreachError):  # noqa: N818 - not an error: the other claims go on
    """Why a claim has no number on this model."""


class Bench:
    """What the numbers are taken from. Args: text: that of the subject. fitted: method -> its file for the model."""

    def __init__(self, subject: Subject, text: str, fitted: Mapping[str, FittedFile]) -> None:
        self.subject, self.model, self.fitted = subject, subject.model, fitted
        self.text_sha256 = sha256(text.encode()).hexdigest()

    def settings(self, name: str) -> list[str]:
        """The specs that a method suggests by itself and that the model takes."""
        suggested = registry.get(name).suggest(self.subject.window, self.subject.to)
        fitting, refused = applicable(self.model, [Candidate(stack=(method,)) for method in suggested])
        if not fitting:
            raise LeftOut(next(iter(refused.values()), "it suggests nothing for these lengths"))
        return [candidate.spec for candidate in fitting]

    def best(self, specs: list[str]) -> str:
        """The one that finds most, and of those that find as much the one with the least loss."""
        return min(specs, key=lambda spec: (-found_share(self.answers(spec, RANKING)).mean, self.rise(spec).mean))

    def rise(self, spec: str) -> Interval:
        """Loss beyond the window above that inside."""
        return mean_interval(list(self.subject.rises(spec).values()))

    def answers(self, spec: str, samples: int = SAMPLES) -> dict[str, bool]:
        """By prompt of the target length."""
        return self.subject.answers(spec, self.subject.to, samples)

    def check_recall(self) -> None:
        """Raise LeftOut for a model that cannot recall: then no method can make it find what lies beyond its window."""
        inside = found_share(self.subject.answers("", self.subject.window, RANKING)).mean
        if inside < RECALLS:
            raise LeftOut(f"the plain model finds {inside:.2f} of the needles inside its window")

    def stacked(self, name: str) -> tuple[str, str]:
        """A method on top of the best one that it improves, and that one alone."""
        for spec in self.ranked:
            if wrappers := registry.get(name).suggest_on(parse(spec)[0]):
                return f"{spec}+{wrappers[0].spec}", spec
        raise LeftOut("no method that it improves works on this model")

    @cached_property
    def ranked(self) -> list[str]:
        """The best setting of every method that forgets nothing, best first."""
        found = []
        for name in [method.name() for method in registry.methods()]:
            if registry.get(name).suggest(self.subject.window, self.subject.to) and not registry.get(name).info.forgets:
                try:
                    found.append(self.best(self.settings(name)))
                except LeftOut:
                    continue
        found.sort(key=lambda spec: (-found_share(self.answers(spec, RANKING)).mean, self.rise(spec).mean))
        return found


Metric = Callable[[str, Bench], Finding]
METRICS: dict[str, tuple[str, Metric]] = {}


def metric(name: str, meaning: str) -> Callable[[Metric], Metric]:
    """Register a metric: a function of a method's name."""

    def keep(function: Metric) -> Metric:
        METRICS[name] = (meaning, function)
        return function

    return keep


@metric("rise", "loss beyond the window above that inside, nats a token")
def _rise(name: str, bench: Bench) -> Finding:
    spec = min(bench.settings(name), key=lambda each: bench.rise(each).mean)
    return Finding(spec=spec, interval=bench.rise(spec), of=counted(bench.subject.rises(spec), "text"))


@metric("rise_share", "the rise of the loss beyond the window, as a share of the plain model's")
def _rise_share(name: str, bench: Bench) -> Finding:
    spec, plain = _rise(name, bench).spec, bench.subject.rises("")
    if not plain:
        raise LeftOut("the plain model cannot read beyond its window")
    rises = bench.subject.rises(spec)
    return Finding(spec=spec, interval=ratio_interval([rises[text] for text in plain], list(plain.values())), of=counted(plain, "text"))


@metric("retrieval", "share of needles found at the target length")
def _retrieval(name: str, bench: Bench) -> Finding:
    bench.check_recall()
    spec = bench.best(bench.settings(name))
    answers = bench.answers(spec)
    return Finding(spec=spec, interval=found_share(answers), of=counted(answers, "prompt"))


@metric("retrieval_gain", "share of needles found at the target length, above that of the method it is stacked on")
def _retrieval_gain(name: str, bench: Bench) -> Finding:
    bench.check_recall()
    spec, alone = bench.stacked(name)
    both, before = bench.answers(spec), bench.answers(alone)
    pairs = [(found, before[prompt]) for prompt, found in both.items()]
    return Finding(spec=spec, interval=paired_share_interval(pairs), of=counted(pairs, "prompt"))


@metric("rise_gain", "rise of the loss beyond the window, below that of the method it is stacked on, nats a token")
def _rise_gain(name: str, bench: Bench) -> Finding:
    spec, alone = bench.stacked(name)
    return Finding(spec=spec, **_difference(bench.subject.rises(alone), bench.subject.rises(spec)))


@metric("over_yarn", "loss beyond the window above YaRN's, on text that nothing was fitted on, nats a token")
def _over_yarn(name: str, bench: Bench) -> Finding:
    file, subject = bench.fitted[name], bench.subject
    (yarn, *_) = bench.settings("yarn")
    fitted = subject.rises(make(registry.get(name), {"file": file}).spec)
    if file.data["text_sha256"] == bench.text_sha256:
        if (2 * file.data["windows"], file.data["target"]) != (len(fitted), subject.to):
            raise LeftOut(f"it was fitted on other windows of the same text; give --windows {2 * file.data['windows']}, or another --text")
        fitted = dict(list(fitted.items())[1::2])  # those that `longreach fit` keeps back
    return Finding(spec=f"{name}:file={Path(file.name).name}", **_difference(fitted, subject.rises(yarn)))


def _difference(losses: Mapping[str, float], others: Mapping[str, float]) -> dict[str, object]:
    """Paired by text."""
    differences = [loss - others[text] for text, loss in losses.items()]
    return {"interval": mean_interval(differences), "of": counted(differences, "text")}


@metric("code_rise_share", "the rise of the loss beyond the window on Python source alone, as a share of the plain model's")
def _code_rise_share(name: str, bench: Bench) -> Finding:
    window = bench.subject.window
    source = "\n\n".join(path.read_text(encoding="utf-8", errors="replace") for path in stdlib_files("held-out"))
    ids = torch.from_numpy(np.stack(cut_windows(Encoder(bench.subject.tokenizer), source, _CODE_WINDOWS * window, _CODE_TEXTS))).long()
    rises = []
    for method in ("", name):
        with longreach.apply(bench.model, method):
            losses = token_losses(bench.model, ids, chunk_size=CHUNK)
        rises.append(losses[:, window - 1 :].mean(1) - losses[:, : window - 1].mean(1))
    return Finding(spec=name, interval=ratio_interval(rises[1].tolist(), rises[0].tolist()), of=counted(rises[0], "text"))


@metric("logit_difference", "largest difference of a logit from the model as it is, token by token over its window")
def _logit_difference(name: str, bench: Bench) -> Finding:
    ids = _window_of_ids(bench)
    with torch.no_grad():
        stock = bench.model(ids, use_cache=False).logits
    with longreach.apply(bench.model, name):
        return _exact(name, _token_by_token(bench, ids) - stock)


@metric("inside_difference", "stacked on yarn, largest difference of a logit from the model as it is, both token by token over its window")
def _inside_difference(name: str, bench: Bench) -> Finding:
    spec, ids = f"yarn:factor=8+{name}", _window_of_ids(bench)
    stock = _token_by_token(bench, ids)
    with longreach.apply(bench.model, spec):
        return _exact(spec, _token_by_token(bench, ids) - stock)


def _exact(spec: str, differences: torch.Tensor) -> Finding:
    """The largest of them: counted and not estimated, so its interval has no width."""
    most = float(differences.abs().max())
    return Finding(spec=spec, interval=Interval(most, most, most), of=counted(range(differences.shape[1]), "token"))


def _window_of_ids(bench: Bench) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, bench.model.config.get_text_config().vocab_size, (1, bench.subject.window), generator=generator)


@torch.no_grad()
def _token_by_token(bench: Bench, ids: torch.Tensor) -> torch.Tensor:
    cache, parts = None, []
    for token in ids.split(1, dim=1):
        out = bench.model(token, **cache_argument(bench.model, cache), use_cache=True)
        cache = cache_of(out)
        parts.append(out.logits)
    return torch.cat(parts, 1)


def evidence(found: Given, bench: Bench) -> list[dict[str, object]]:
    """One row for each claim that can be held against the model; of the others it is printed why not."""
    rows: list[dict[str, object]] = []
    bench.subject.standard(start=bench.subject.window)  # what is wrong with the text or the lengths stops here, and not claim by claim
    for method in registry.methods():
        name = method.name()
        for claim in method.info.claims:
            try:
                if claim.metric not in METRICS:
                    raise LeftOut(f"{claim.metric} is taken by the recipe that trains a model for it")
                if method.info.fitted and name not in bench.fitted:
                    raise LeftOut("no --fitted file")
                meaning, take = METRICS[claim.metric]
                finding = take(name, bench)
            except LongreachError as error:
                print(f"{name}: {error}; its claim is left out")
                continue
            setting = f"`{finding.spec}`, {bench.subject.window} to {bench.subject.to} tokens"
            facts = {"model": found.facts["model"], "data": found.data, "setting": setting, "metric": meaning, "command": found.command}
            row = claim_row(name, claim, finding, **facts)
            low, high = finding.interval.low, finding.interval.high
            print(f"{name}: {meaning} {finding.interval.mean:.3g} ({low:.3g} to {high:.3g}, {finding.of}): {row['verdict']}", flush=True)
            rows.append(row)
    if not rows:
        raise LongreachError("no claim could be held against this model")
    return rows


def _fitted(path: Path) -> FittedFile:
    try:
        return FittedFile(str(path))
    except SpecError as error:
        raise InputError(f"--fitted {path}: {error}") from error


def main() -> None:
    """Measure, and write the rows."""
    options = parser(__doc__ or "")
    options.add_argument(
        "--fitted",
        type=Path,
        action="append",
        default=[],
        help="a file of `longreach fit MODEL`, for a method to be fitted; may be repeated",
    )
    args = options.parse_args()
    try:
        with BarProgress() as progress:
            fitted = {file.data["method"]: file for file in map(_fitted, args.fitted)}
            found = given(args, "evidence.py", "".join(f" --fitted {path.name}" for path in args.fitted), progress)
            if wrong := [file.name for file in fitted.values() if file.data["weights"] != fingerprint(found.subject.model)]:
                raise InputError(f"--fitted {wrong[0]} was fitted to another model; run longreach fit {args.model}")
            rows = evidence(found, Bench(found.subject, texts_of(args), fitted))
            print(f"Rows: {write(args.out, found.facts, rows)}")
    except LongreachError as error:
        print(f"evidence: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

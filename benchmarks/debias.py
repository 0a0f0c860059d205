"""Length-controlled win rates of `longreach debias` beside the published ones, for every system whose annotations a clone holds.

    python benchmarks/debias.py ALPACA_EVAL [--wildbench CLONE] [--scikit-learn] [--keep]

ALPACA_EVAL is a clone of github.com/tatsu-lab/alpaca_eval, CLONE one of github.com/allenai/WildBench. The file of difficulties and gamed
baselines that the published numbers stand on is not in the former; `_recovered.py` gets at it from the published numbers. A tenth of the
systems is left out of that at a time, and what it then gives of these is compared with what was published. `--scikit-learn`, where that is
installed, sets our solver beside liblinear. `--keep` writes docs/debias.md.
"""

import argparse
import csv
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from _liblinear import fitted
from _recovered import PublishedFit, gamed_of, recover

from longreach.core.errors import InputError
from longreach.evaluation.preferences.annotations import Annotations, Floats, read_annotations
from longreach.evaluation.preferences.difficulty import Gamed, joint_difficulty, length_feature
from longreach.evaluation.preferences.length_controlled import Compared, compare
from longreach.evaluation.preferences.logistic import Problem, cross_validated, sigmoid, solve
from longreach.evaluation.preferences.ties import Outcomes, outcomes

PAGE = Path(__file__).resolve().parents[1] / "docs" / "debias.md"
ANNOTATOR, BASELINE = "weighted_alpaca_eval_gpt4_turbo", "gpt4_1106_preview"
BEGIN, END = "<!-- published -->", "<!-- /published -->"
PARTS, RESAMPLES = 10, 200


@dataclass(frozen=True, kw_only=True)
class Line:
    """A system: rates in percent.

    Args: held_out: by what the others' published numbers gave. inside: with its own among them. joint, alone: without such a file, from all
    annotations or from its own.
    """

    name: str
    raw: float
    published: float
    held_out: Compared
    inside: Compared
    joint: Compared
    alone: Compared

    def off(self, which: str) -> float:
        """Points from the published rate."""
        return getattr(self, which).controlled.rate.mean - self.published


def published(clone: Path, read: dict[str, Annotations]) -> list[PublishedFit]:
    """All systems with published coefficients and a published win rate, and what the clone has of each."""
    source = clone / "src" / "alpaca_eval"
    weights = source / "metrics" / "weights" / ANNOTATOR / "length_controlled_v1" / f"baseline_{BASELINE}.csv"
    board = source / "leaderboards" / "data_AlpacaEval_2" / f"{ANNOTATOR}_leaderboard.csv"
    with weights.open(encoding="utf-8", newline="") as stream:
        coefficients = {row[0]: tuple(map(float, row[1:])) for row in list(csv.reader(stream))[1:]}
    with board.open(encoding="utf-8", newline="") as stream:
        rows = {row[""]: row for row in csv.DictReader(stream)}
    found = []
    baseline = next(iter(read.values()))
    for name, (length, difficulty, constant) in coefficients.items():
        row = rows.get(name)
        if row is None or not row["length_controlled_winrate"] or name == BASELINE:
            continue
        feature, preference, wins = None, None, float("nan")
        if name in read:
            feature, preference = length_feature(read[name]), read[name].preference
        elif (longer := outputs_longer(clone, name, baseline)) is not None:
            feature, wins = np.tanh(longer / longer.std(ddof=1)), len(longer) * float(row["win_rate"]) / 100
        fit = PublishedFit(
            name=name, coefficients=(-length, difficulty, constant), rate=float(row["length_controlled_winrate"]),
            error=float(row["lc_standard_error"] or "nan"), feature=feature, preference=preference, wins=wins,
        )  # fmt: skip
        found.append(fit)
    return found


def outputs_longer(clone: Path, name: str, like: Annotations) -> Floats | None:
    """By how much a system's published outputs are longer than the baseline's [N]; None where they are not those of all instructions."""
    path = clone / "results" / name / "model_outputs.json"
    if not path.exists():
        return None
    outputs = json.loads(path.read_text(encoding="utf-8"))
    if tuple(each["instruction"] for each in outputs) != like.instructions:
        return None
    return np.array([len(each["output"] or "") for each in outputs]) - like.baseline_lengths


def annotations(clone: Path) -> dict[str, Annotations]:
    """Name of a folder of results -> its annotations, the longest files first."""
    found = {}
    for path in sorted((clone / "results").glob(f"*/{ANNOTATOR}/annotations.json")):
        if (name := path.parents[1].name) != BASELINE:
            found[name] = read_annotations(path, BASELINE)
    if not found:
        raise InputError(f"{clone}: no results/*/{ANNOTATOR}/annotations.json; give a clone of github.com/tatsu-lab/alpaca_eval")
    return dict(sorted(found.items(), key=lambda item: -len(item[1].instructions)))


def gamed_lengths(clone: Path, read: dict[str, Annotations]) -> Floats:
    """The feature of length of both gamed baselines, one behind the other."""
    like = next(iter(read.values()))
    longer = [outputs_longer(clone, f"{BASELINE}_{kind}", like) for kind in ("verbose", "concise")]
    if any(one is None for one in longer):
        raise InputError(f"{clone}: results/{BASELINE}_verbose or _concise lacks its outputs")
    return np.concatenate([np.tanh(one / one.std(ddof=1)) for one in longer])


def lines(clone: Path) -> list[Line]:
    """Every system that has annotations in the clone and published numbers."""
    read = annotations(clone)
    fits, feature = published(clone, read), gamed_lengths(clone, read)
    first = next(iter(read.values()))
    joint = joint_difficulty(list(read.values()))
    start = np.array([joint[text] for text in first.instructions])
    order = np.random.default_rng(0).permutation(len(fits))
    whole = gamed_of(*_recovered(fits, feature, start))
    named = {name: file for name, file in read.items() if name in {fit.name for fit in fits}}
    together = {one.place: one for one in compare(list(read.values()), resamples=RESAMPLES)}
    found = []
    for part in range(PARTS):
        left_out = {fits[number].name for number in order[part::PARTS]}
        gamed = gamed_of(*_recovered([fit for fit in fits if fit.name not in left_out], feature, start))
        for fit in fits:
            if fit.name in left_out and fit.name in named:
                file = named[fit.name]
                alone, inside, held_out = (_of(file, given) for given in (None, whole, gamed))
                raw = float(100 * np.nanmean(file.preference))
                found.append(
                    Line(
                        name=fit.name,
                        raw=raw,
                        published=fit.rate,
                        held_out=held_out,
                        inside=inside,
                        joint=together[file.place],
                        alone=alone,
                    )
                )
    return sorted(found, key=lambda line: -line.published)


def _recovered(fits: list[PublishedFit], feature: Floats, start: Floats) -> tuple[Floats, Floats, Floats]:
    difficulty, preference = recover(fits, feature, start)
    return difficulty, feature, preference


def _of(file: Annotations, gamed: Gamed | None) -> Compared:
    return compare([file], gamed=gamed, resamples=RESAMPLES)[0]


def page(found: list[Line]) -> str:
    """A summary and a table."""
    ways = {
        "held_out": "recovered, the system's own published numbers left out",
        "inside": "recovered, with the system's own published numbers",
        "joint": "difficulty from the other annotation files, no gamed baselines (`longreach debias FILE...`)",
        "alone": "length alone (`longreach debias FILE`)",
    }
    text = [f"Of {len(found)} systems, points from the published length-controlled win rate:", ""]
    text += ["| what the model knows | mean | median | within 0.1 | within 0.3 | most |", "| --- | --- | --- | --- | --- | --- |"]
    for way, name in ways.items():
        off = np.abs([line.off(way) for line in found])
        shares = " | ".join(f"{int((off <= bound).sum())} of {len(off)}" for bound in (0.1, 0.3))
        text.append(f"| {name} | {off.mean():.2f} | {np.median(off):.2f} | {shares} | {off.max():.2f} ({found[int(off.argmax())].name}) |")
    ratio = [line.held_out.controlled.standard_error / line.held_out.controlled.sem for line in found]
    text += ["", f"The standard error by resampling is {np.median(ratio):.1f} times the published kind (median; {min(ratio):.1f} to"]
    text[-1] += f" {max(ratio):.1f}), under the model that holds the effect of length."
    ratio = [line.joint.controlled.standard_error / line.joint.controlled.sem for line in found]
    text[-1] += f" Without gamed baselines it is {np.median(ratio):.1f} times it ({min(ratio):.1f} to {max(ratio):.1f})."
    text += ["", "| system | win rate | published | held out | inside | others' files | alone | explained | sem | error |"]
    text.append("| --- " * 10 + "|")
    for line in found:
        rates = " | ".join(f"{getattr(line, way).controlled.rate.mean:.2f}" for way in ways)
        fit = line.held_out
        text.append(
            f"| {line.name} | {line.raw:.2f} | {line.published:.2f} | {rates} | {fit.effect.deviance:.0%} "
            f"| {fit.controlled.sem:.2f} | {fit.controlled.standard_error:.2f} |"
        )
    return "\n".join(text)


def wildbench(clone: Path) -> str:
    """Published rewards beside those of the published counts, and counts beside those of the pairwise results that the clone holds."""
    boards = sorted((clone / "leaderboard" / "data_dir").glob("pairwise-*-K=*.json"))
    folders = {"gpt4t": "gpt-4-turbo-2024-04-09", "haiku": "claude-3-haiku-20240307", "llama": "Llama-2-70b-chat-hf"}
    checked, worst, same, held, kept = 0, 0.0, 0, 0, 0
    plain: dict[tuple[str, str], Outcomes] = {}
    for board in boards:
        kind, threshold = board.stem.split("-K=")
        for name, row in json.loads(board.read_text(encoding="utf-8")).items():
            counts = Outcomes(**{key: row[key] for key in ("win_much", "win", "tie", "lose", "lose_much", "total")})
            worst, checked = max(worst, abs(counts.reward - 100 * row["reward"])), checked + 1
            without = plain.setdefault((kind, name), counts)  # K=-1 comes first
            kept += (without.win_much, without.lose_much, without.win + without.tie + without.lose) == (
                counts.win_much, counts.lose_much, counts.win + counts.tie + counts.lose
            )  # fmt: skip
            for path in clone.glob(f"eval_results/v2.0522/pairwise.v2/*/ref={folders[kind.removeprefix('pairwise-')]}/{name}.json"):
                ours = outcomes(read_annotations(path), None if int(threshold) < 0 else float(threshold))
                held, same = held + 1, same + (ours.reward == counts.reward)
    results = f"{same} of {held} have the published reward" if held else "none is in the clone"
    return (
        f"WildBench, {checked} published rewards (three baselines; K = 500, 1000, 1500 and none): from the published counts of outcomes "
        f"the reward comes out to {worst:.0e} points; in {kept} of {checked} clear wins and losses are those without the rule, and slight "
        f"ones and ties have the same sum. Pairwise results themselves: {results}."
    )


def liblinear(clone: Path) -> str:
    """Our solver beside scikit-learn's, on length alone: nothing that had to be recovered."""
    import sklearn

    read, told = annotations(clone), []
    for tolerance in (1e-4, 1e-10):
        same, own, other = [], [], 0
        for file in read.values():
            feature = length_feature(file)
            problem = Problem(x=np.stack([feature, np.ones_like(feature)], axis=1), y=file.preference, weight=np.ones(len(feature)))
            (_, theirs), strength = fitted(problem, tolerance)
            (_, ours), chosen = solve(problem, strength)[0], cross_validated(problem)
            best = solve(problem, chosen)[0][1]
            same.append(abs(sigmoid(ours) - sigmoid(theirs)))
            own.append(abs(sigmoid(best) - sigmoid(theirs)))
            other += not np.isclose(chosen, strength)
        told.append(
            f"with a tolerance of {tolerance:.0e} {100 * max(same):.1g} points under the same C, {100 * max(own):.1g} each with its own"
        )
        told[-1] += f" (another one for {other} files)"
    return f"Beside scikit-learn {sklearn.__version__} (liblinear), on length alone, of {len(read)} files, at most: {'; '.join(told)}."


def coverage(counts: tuple[int, ...] = (100, 800), draws: int = 300) -> str:
    """How often 95 % intervals hold the true rate of a simulated system: quality 0.5, effect of length 1, difficulties of deviation 1.5."""
    truth = 100 * float(sigmoid(np.random.default_rng(0).normal(0.5, 1.5, 400_000)).mean())
    told = []
    for count in counts:
        inside = narrow = 0
        for seed in range(1, draws + 1):
            rng = np.random.default_rng(seed)
            baseline, hardness = rng.integers(300, 900, count).astype(float), rng.normal(0, 1.5, count)
            file = Annotations(
                place="", system="system", baseline="baseline", annotator="", instructions=tuple(map(str, range(count))),
                index=tuple(range(count)), lengths=rng.integers(400, 1000, count).astype(float), baseline_lengths=baseline,
                preference=np.zeros(count),
            )  # fmt: skip
            chance = sigmoid(0.5 + length_feature(file) + hardness)
            drawn = replace(file, preference=(rng.random(count) < chance).astype(float))
            fit = compare([drawn], dict(enumerate(hardness.tolist())), seed=seed, resamples=400)[0].controlled
            inside += fit.rate.low <= truth <= fit.rate.high
            narrow += abs(fit.rate.mean - truth) <= 1.96 * fit.sem
        told.append(f"{inside / draws:.0%} and {narrow / draws:.0%} for {count} comparisons")
    return (
        f"Of {draws} simulated systems whose win rate at equal lengths is known, the intervals by resampling held it for the first share, "
        f"and 1.96 published standard errors either way for the second: {'; '.join(told)}."
    )


def _written(parts: list[str]) -> None:
    before, after = PAGE.read_text(encoding="utf-8").split(BEGIN)[0], PAGE.read_text(encoding="utf-8").split(END)[1]
    PAGE.write_text(before + "\n\n".join([BEGIN, *parts, END]) + after, encoding="utf-8")


def _parts(alpaca_eval: Path, other: Path | None, scikit_learn: bool) -> Iterator[str]:
    yield page(lines(alpaca_eval))
    if scikit_learn:
        yield liblinear(alpaca_eval)
    if other is not None:
        yield wildbench(other)
    yield coverage()
    more = " --wildbench WILDBENCH" * (other is not None) + " --scikit-learn" * scikit_learn
    yield f"Written by `python benchmarks/debias.py ALPACA_EVAL{more} --keep`."


def main() -> None:
    """Print, and keep it where that is wanted."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("clone", type=Path, metavar="ALPACA_EVAL")
    options.add_argument("--wildbench", type=Path, metavar="CLONE")
    options.add_argument("--scikit-learn", action="store_true", help="set our solver beside liblinear")
    options.add_argument("--keep", action="store_true", help="write it into docs/debias.md")
    args = options.parse_args()
    if args.scikit_learn and importlib.util.find_spec("sklearn") is None:
        sys.exit("debias: --scikit-learn needs scikit-learn: pip install scikit-learn")
    try:
        parts = list(_parts(args.clone, args.wildbench, args.scikit_learn))
    except InputError as error:
        print(f"debias: {error}", file=sys.stderr)
        sys.exit(2)
    print("\n\n".join(parts))
    if args.keep:
        _written(parts)


if __name__ == "__main__":
    main()

"""Compares methods by one protocol: one base model, one set of data, one budget of training, one set of questions.

Source: A Controlled Study on Long Context Extension and Generalization in LLMs, 2024, arXiv:2409.12181.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.core import registry
from longreach.core.errors import InputError, UnsupportedError
from longreach.core.progress import SILENT, Progress
from longreach.core.spec import parse
from longreach.engine import window
from longreach.engine.apply import apply
from longreach.evaluation.applicable import refusal
from longreach.evaluation.evaluate import evaluate
from longreach.evaluation.intervals import Interval, block_interval
from longreach.evaluation.measure import measure
from longreach.evaluation.ranking import Ranking, as_json, rank
from longreach.evaluation.rows import Row, Rows, by_block
from longreach.stretching.candidates import collect
from longreach.training.plan import trainable

Prepare = Callable[[str], PreTrainedModel]  # spec -> the base model, or what became of it when it was tuned under that

_WINDOWS = 4  # of text, for the loss


@dataclass(frozen=True, kw_only=True)
class LossAtTarget:
    """Of the last octave at the target, nats a token. Args: mean: over all blocks. above: the best loss, on the same tokens."""

    mean: float
    above: Interval | None


@dataclass(frozen=True, kw_only=True)
class MethodComparison:
    """Args: ranking: by the tasks. losses: by method; agreement: Spearman's correlation of rank by loss and rank by tasks over the methods;
    None for fewer than three. left_out: method -> why it could not be compared."""

    ranking: Ranking
    losses: Mapping[str, LossAtTarget]
    agreement: float | None
    left_out: Mapping[str, str]


def compare(
    prepare: Prepare,
    tokenizer: PreTrainedTokenizerBase,
    specs: Sequence[str],
    *,
    target: int,
    tasks: str,
    lengths: Sequence[int],
    passages: int,
    seed: int,
    text: str,
    name: str,
    rows: Rows,
    tuned: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> MethodComparison:
    """Ask every method the same, and rank them.

    Args: those of `evaluate`; specs: "" is the base model. tuned: how the model was tuned under each method that is not `frozen`, for rows
    to tell.

    A method that the model does not take is left out, with its reason. Raises: InputError where none is left.
    """
    found: dict[str, list[Row]] = {}
    losses: dict[str, dict[tuple[str, int], float]] = {}
    left_out: dict[str, str] = {}
    for spec in specs:
        try:
            model = prepare(spec)
            if spec and (error := refusal(model, parse(spec))) is not None:
                raise error
        except UnsupportedError as error:
            left_out[spec] = error.reason
            continue
        with apply(model, spec, warn=False):
            limit = window.position_limit(model)
        if limit is not None and limit < max(target, *lengths):
            left_out[spec] = f"the model {window.cannot_read(limit)}"
            continue
        settings = {} if tuned is None or frozen(spec) else {"tuned": tuned}
        common: dict[str, Any] = {"method": spec, "text": text, "name": name, "rows": rows, "settings": settings, "progress": progress}
        found[spec] = list(evaluate(model, tokenizer, tasks=tasks, lengths=lengths, passages=passages, seed=seed, **common).rows)
        octave = measure(model, tokenizer, to=target, tasks="loss", windows=_WINDOWS, **common)
        losses[spec] = by_block(row for row in octave if row.length == target)
    if not found:
        raise InputError("no method is left to compare: " + "; ".join(f"{spec or 'the base'}: {why}" for spec, why in left_out.items()))
    ranking = rank((row for of in found.values() for row in of), seed=seed)
    means = {spec: _mean(of) for spec, of in losses.items()}
    best = min(means, key=lambda spec: means[spec])
    above = {
        spec: None if spec == best else block_interval([loss - losses[best][block] for block, loss in of.items()])
        for spec, of in losses.items()
    }
    return MethodComparison(
        ranking=ranking, losses={spec: LossAtTarget(mean=means[spec], above=above[spec]) for spec in means},
        agreement=_agreement([one.method for one in ranking.ranks], means), left_out=left_out,
    )  # fmt: skip


def frozen(spec: str) -> bool:
    """Whether a method is compared without tuning, as in the paper: the base model, and what nothing can be trained under (a cache that
    drops tokens, a window of attention, positions that change with the tokens seen)."""
    if not spec:
        return True
    try:
        trainable(spec)
    except InputError:
        return True
    return False


def comparison_json(found: MethodComparison, name: str, target: int, tuned: Mapping[str, Any] | None) -> dict[str, Any]:
    """A comparison as plain JSON values. Args: name: of the base model. target: in tokens. tuned: how methods were tuned, if they were."""
    losses = {spec: {"mean": loss.mean, "above": None if loss.above is None else list(loss.above)} for spec, loss in found.losses.items()}
    untuned = [spec for spec in found.losses if spec and frozen(spec)]
    return {
        "model": name, "target": target, "tuned": None if tuned is None else dict(tuned), "frozen": [] if tuned is None else untuned,
        **as_json(found.ranking), "losses": losses, "agreement": found.agreement, "left_out": dict(found.left_out),
    }  # fmt: skip


def specs_of(kind: str, model: PreTrainedModel, target: int) -> list[str]:
    """The first setting that each method of a kind suggests to reach the target. Raises: InputError where none does."""
    trained, found = _window_within(model, target), []
    for method in registry.methods(kind):
        if suggested := method.suggest(trained, target):
            found.append(suggested[0].spec)
    if not found:
        raise InputError(f"no method of the kind {kind} suggests a setting to reach {target} tokens; name some with --method")
    return found


def specs_meant(names: Iterable[str], model: PreTrainedModel, target: int) -> list[str]:
    """Specs, and the names of methods, which mean their first suggestion. Raises: InputError, SpecError."""
    names, known = list(names), registry.names()
    trained = _window_within(model, target) if any(name in known for name in names) else window.window_of(model)
    return [collect([name], trained, target)[0].spec for name in names]


def _window_within(model: PreTrainedModel, target: int) -> int:
    """The trained window. Raises: InputError for a target within it, for which no method suggests a setting."""
    trained = window.window_of(model)
    if target <= trained:
        more = "give a greater length, or methods with their settings"
        raise InputError(f"nothing to compare: {target} tokens are within the trained window of {trained}; {more}")
    return trained


def _mean(blocks: Mapping[tuple[str, int], float]) -> float:
    return sum(blocks.values()) / len(blocks)


def _agreement(ranked: Sequence[str], losses: Mapping[str, float]) -> float | None:
    """Spearman's rank correlation: 1 where a lower loss always goes with a better rank."""
    if len(ranked) < 3:
        return None
    by_loss = sorted(ranked, key=lambda spec: losses[spec])
    n = len(ranked)
    squares = sum((place - by_loss.index(spec)) ** 2 for place, spec in enumerate(ranked))
    return float(1 - 6 * squares / (n * (n * n - 1)))

"""What `tune` and `stretch --tune` share: the training, what is said of it, and saving what came of it."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import longreach
from longreach.core.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from longreach.checkpoints.checkpoint import Checkpoint
    from longreach.core.method import Method
    from longreach.core.progress import Progress
    from longreach.data.sources import Texts
    from longreach.stretching.tournament import Trained
    from longreach.training.plan import TuneConfig
    from longreach.training.tune import Tuned


@dataclass
class Tuner:
    """Trains a checkpoint's model under the first of some positions methods that it takes, or under that of the run in the folder.

    Args: loaded: trained in place. config: without a method. folder: of the run. held_out: text for the gate.
    Raises: as `training.tune.check`, so that nothing is measured first that cannot be trained.
    """

    loaded: "Checkpoint"
    _: KW_ONLY
    texts: "Texts"
    config: "TuneConfig"
    folder: Path
    held_out: str
    tuned: "Tuned | None" = None

    def __post_init__(self) -> None:
        from longreach.training.tune import check

        check(*self.loaded, self.texts, self.config, self.folder, held_out=self.held_out)

    def __call__(self, specs: Sequence[str], progress: "Progress") -> "Trained":
        """Train under one of the specs, of which the most promising is the first."""
        from longreach.stretching.tournament import Trained
        from longreach.training.plan import under_the_first
        from longreach.training.tune import method_of_run, tune

        begun = method_of_run(self.folder)  # with a time budget, the ranking may have changed since
        config = under_the_first(self.loaded.model, self.config, sorted(specs, key=lambda spec: spec != begun))
        self.tuned = tune(*self.loaded, self.texts, config, self.folder, held_out=self.held_out, progress=progress)
        return Trained(model=self.tuned.model, method=self.tuned.plan.spec, steps=config.steps, lost=self.tuned.gate.shortfall)

    @property
    def result(self) -> dict[str, Any] | None:
        """What was done, for programs and, in `words`, for people; None before anything was."""
        if self.tuned is None:
            return None
        found = result(self.tuned, self.config, self.texts, self.folder)
        return {**found, "words": words(found)}


def check_places(out: Path, work: Path) -> None:
    """Raise InputError where one folder would lie in the other."""
    if work.resolve().is_relative_to(out.resolve()) or out.resolve().is_relative_to(work.resolve()):
        raise InputError(f"--work {work} and --out {out} must lie beside each other; choose another folder")


def result(tuned: "Tuned", config: "TuneConfig", texts: "Texts", folder: Path) -> dict[str, Any]:
    """What a run was and came to, for programs."""
    gate = tuned.gate
    return {
        "target": config.target,
        "method": tuned.plan.spec,
        "sampler": tuned.plan.sampler.spec,
        "seq_len": tuned.plan.geometry.seq_len,
        "steps": config.steps,
        "tokens": config.steps * config.batch_size * tuned.plan.geometry.seq_len,
        "resumed_at": tuned.resumed,
        "trained_parameters": tuned.trained_parameters,
        "mixture": dict(config.mixture),
        "short_loss": {**asdict(gate), "rise": gate.rise, "falling": gate.falling},
        "extended": gate.passed,
        "data": texts.told,
        "skipped_files": list(texts.skipped),
        "loss": str(folder / "loss.jsonl"),
        "loss_curve": str(folder / "loss.png"),
    }


def words(result: dict[str, Any]) -> list[str]:
    """The sentences that say it to people."""
    loss, sentences = result["short_loss"], [result["data"]]
    under = f"under {result['method']}" if result["method"] else "with its longer table of positions"
    going_on = f", going on from step {result['resumed_at']}" if result["resumed_at"] else ""
    sentences.append(
        f"Trained {result['trained_parameters']:,} parameters on {result['tokens']:,} tokens {under}, "
        f"positions by {result['sampler']}, in {result['steps']} steps of {result['seq_len']}-token sequences{going_on}."
    )
    start = "before" if result["method"] else "with the longer table before training"
    change = f"{loss['before']:.3f} nats a token {start}, {loss['after']:.3f} after ({loss['rise']:+.2%}; bar +1 %)"
    sentences.append(f"Loss inside the trained window: {change}.")
    if not result["extended"]:
        sentences.append(f"The model lost too much at short lengths to be called extended. {_advice(result)}")
    return sentences


def _advice(result: dict[str, Any]) -> str:
    """What would keep the loss inside the window down: that hangs on whether it is the method that raised it, or the training."""
    loss, method = result["short_loss"], result["method"] or "the longer table"
    alone, now, steps = f"{loss['untrained']:.3f}", f"{loss['after']:.3f}", f"{result['steps']} steps"
    if loss["falling"]:
        return f"{method} alone had raised the loss to {alone}, and {steps} have brought it down to {now}: train for more steps."
    return f"Training raised the loss (under {method} alone it is {alone}): try a smaller --lr, or more of short in tune's --mix."


def save_proven(
    loaded: "Checkpoint", out: Path, *, method: "str | Sequence[Method]", target: int, original: "PreTrainedModel | None" = None
) -> dict[str, Any]:
    """Save a checkpoint and prove it where it is an export with a method. Returns: folder, exported, difference of the logits.

    Args: original: the model that was saved, needed to prove methods that change the weights.
    """
    from longreach.checkpoints.export import verify_export
    from longreach.checkpoints.record import read_record

    place = longreach.save(*loaded, out, method=method, target=target)
    record = read_record(place)
    exported = record is not None and record.exported
    return {"folder": str(out), "exported": exported, "difference": verify_export(place, original) if exported and method else None}

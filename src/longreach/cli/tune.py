"""`longreach tune`: continued training that extends a model, resumable, with a gate at its end."""

import dataclasses
import json
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import longreach
from longreach.checkpoints.places import place_of
from longreach.cli._options import AS_IT_IS, Loading, loads_model
from longreach.cli._places import check_texts, check_writable
from longreach.cli._progress import BarProgress
from longreach.cli._target import planned
from longreach.cli._target import result as measured
from longreach.cli._target import words as target_words
from longreach.cli._tuning import check_places, result, save_proven, words
from longreach.core import registry
from longreach.core.errors import InputError
from longreach.core.lengths import parse_length
from longreach.core.spec import check_names
from longreach.data.sources import read_folder

if TYPE_CHECKING:
    from longreach.checkpoints.checkpoint import Checkpoint


@loads_model
def tune(
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, a hub id, or nano.")],
    to: Annotated[str, typer.Option(metavar="LENGTH", help="Tokens to reach: 4096, 32k, 1M.")],
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="What to train on: text files, JSON, JSON Lines, CSV, Parquet, Arrow.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Save the tuned checkpoint here.")],
    method: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="What to train under: a positions method, attention methods, or a cache that needs training, also stacked; for learned "
            "positions a method that lengthens their table. [default: yarn with the factor that it takes]",
        ),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(metavar="SPEC", help="How positions are drawn: see longreach methods --kind sampler. [default: pose]")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A published recipe (longreach methods --kind recipe), or a Python file with one; options here win."
        ),
    ] = None,
    seq_len: Annotated[str | None, typer.Option(metavar="LENGTH", help="Tokens of a training sequence. [default: the window]")] = None,
    mix: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=SHARE,...",
            help="Sources: long, short, recall, interleaved, questions, bootstrap. [default: long=0.4,short=0.3,recall=0.3]",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps. [default: 1000]")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Sequences a step. [default: 16]")] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Forward passes that a step is made of, where memory is short. [default: 1]")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate. [default: 2e-4 for adapters, 2e-5 in full]")] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the steps over which the rate rises. [default: 0.02]")] = None,
    schedule: Annotated[Literal["linear", "cosine", "constant"] | None, typer.Option(help="How the rate falls. [default: cosine]")] = None,
    full: Annotated[bool, typer.Option("--full", help="Train every weight instead of adapters.")] = False,
    rank: Annotated[int | None, typer.Option(min=1, help="Of the adapters (LoRA). [default: 16]")] = None,
    alpha: Annotated[int | None, typer.Option(min=1, help="Scale of the adapters, over the rank. [default: 32]")] = None,
    targets: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Linear layers with adapters: q_proj,v_proj. [default: all but the output head]")
    ] = None,
    train: Annotated[str | None, typer.Option(metavar="PART,...", help="Beside the adapters: embeddings,norms. [default: nothing]")] = None,
    text_field: Annotated[str, typer.Option(metavar="NAME", help="Field of records (JSON Lines, CSV, Parquet) with the text.")] = "text",
    text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Held-out text for the gate, UTF-8; may be repeated. [default: this Python's documentation and held-out source]",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Save the model even if its loss inside the window rose by more than 1 %.")
    ] = False,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Do not measure the loss at the target, which is done where it takes little time.")
    ] = False,
    work: Annotated[Path | None, typer.Option(metavar="DIR", help="For checkpoints and the loss curve. [default: OUT-run]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the sequences and the adapters. [default: 0]")] = None,
    loading: Loading = AS_IT_IS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")] = False,
) -> None:
    """Train a model to reach a length, on short sequences at sampled positions, and save it.

    Ends with a gate: where the loss inside the trained window rose by more than 1 %, the model is not called extended, nothing is saved
    without --force, and the exit code is 1. Says what was gained at the target, on a few texts, and how to measure it in full. A stopped
    run goes on when the same command is given again.
    """
    target = parse_length(to)
    check_names([method] if method else [])
    check_names([sampler] if sampler else [], acts_on="training")
    check_texts(text)
    given: dict[str, Any] = {
        "method": method, "sampler": sampler, "seq_len": None if seq_len is None else parse_length(seq_len), "mixture": _mixture(mix),
        "steps": steps, "batch_size": batch_size, "accumulate": accumulate, "lr": lr, "warmup": warmup, "schedule": schedule,
        "full": full or None, "rank": rank, "alpha": alpha, "targets": _names(targets), "parts": _names(train), "seed": seed,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    _check_adapters(given)
    table = given.pop("method") if method is not None and _is_table(method) else None

    folder = work or out.with_name(f"{out.name}-run")
    check_places(out, folder)
    check_writable(folder, "--work")
    check_writable(place_of(out), "--out")
    with BarProgress(at_once=True) as progress:
        progress.start(f"reading {data}", 0)
        texts = read_folder(data, text_field)
        progress.start("loading the libraries", 0)
        from longreach.checkpoints.checkpoint import Checkpoint
        from longreach.data.stdlib import stdlib_text
        from longreach.engine.rope_config import rope_of
        from longreach.evaluation.text import read_texts
        from longreach.training.plan import TuneConfig, plan
        from longreach.training.tune import tune as run

        make = None if recipe is None else _recipe(recipe)
        config = TuneConfig(target=target, **given)
        held_out = read_texts(text) if text else stdlib_text("held-out")
        progress.start(f"loading {model}", 0)
        # Weights are trained in float32: in bfloat16 small steps are lost.
        loaded = loading.load(model, dtype=loading.dtype or ("float32" if full else None), apply_method=False, decoder_only=True)
    typer.echo(texts.told, err=True)
    if table is not None:
        loaded = _lengthened(loaded, table, target, folder)
    if make is not None:
        config = dataclasses.replace(make(rope_of(loaded.model.config, method="this recipe"), target), **given)
    try:
        with BarProgress(at_once=True) as progress:
            look = "--no-measure" if no_measure else planned(loaded, plan(loaded.model, config), config, held_out, progress)
            probe = None if isinstance(look, str) else look
            tuned = run(*loaded, texts, config, folder, held_out=held_out, probe=probe, progress=progress)
    except KeyboardInterrupt:
        typer.echo(_kept(folder, config.steps), err=True)  # after the bar is gone, which would take it along
        raise
    saved = None
    reached = target if tuned.plan.methods else tuned.plan.geometry.target  # a table is trained whole
    if tuned.gate.passed or force:
        with BarProgress(at_once=True) as progress:
            progress.start(f"saving {out}", 0)
            saved = save_proven(Checkpoint(tuned.model, loaded.tokenizer), out, method=tuned.plan.methods, target=reached)
    found = {
        **result(tuned, config, texts, folder),
        "target_loss": None if probe is None else measured(probe, tuned.probed),
        "not_measured": look if isinstance(look, str) else None,
        "saved": saved,
        "measure": None if saved is None else _command(out, to, text, loading),
    }
    print(json.dumps(found, allow_nan=False) if as_json else _sentences(found, out))
    if saved is None:
        raise typer.Exit(1)


def _is_table(method: str) -> bool:
    """Whether a spec names a method that lengthens a table of learned positions."""
    from longreach.core.spec import parse
    from longreach.positions.base import TableMethod

    return any(isinstance(each, TableMethod) for each in parse(method, trained_window=1024, target=2048))  # any lengths do


def _lengthened(loaded: "Checkpoint", method: str, target: int, folder: Path) -> "Checkpoint":
    """The checkpoint with its longer table of positions among the weights, where it can be trained."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".lengthened-") as scratch:
        place = longreach.save(*loaded, Path(scratch, "model"), method=method, target=target)
        return longreach.load(place, dtype=loaded.model.dtype, device=loaded.model.device, apply_method=False)


def _kept(folder: Path, steps: int) -> str:
    """What is left of a run that was stopped."""
    from longreach.training.tune import SAVE_EVERY, last_step

    if step := last_step(folder):
        return f"Step {step} of {steps} is kept in {folder}; the same command goes on from there."
    every = round(SAVE_EVERY / 60)
    return f"Nothing trained is kept yet: that is done every {every} minutes and at the end. The same command begins the training anew."


def _command(out: Path, to: str, text: list[Path] | None, loading: Loading) -> str:
    """That measures the saved model in full, on the same text and device."""
    words = ["longreach", "measure", str(out), "--to", to]
    for file in text or ():
        words += ["--text", str(file)]
    words += ["--device", loading.device] if loading.device else []
    return shlex.join([*words, "--trust-remote-code"] if loading.trust_remote_code else words)


def _mixture(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    names = [name.strip() for name, _, _ in pairs]
    if len(set(names)) < len(names):
        raise InputError(f"--mix {text}: a source is named twice")
    try:
        return {name.strip(): float(share) for name, _, share in pairs}
    except ValueError:
        raise InputError(f"--mix {text}: write long=0.5,short=0.3,recall=0.2") from None


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def _check_adapters(given: dict[str, Any]) -> None:
    """An option without effect is an error."""
    names = {"rank": "--rank", "alpha": "--alpha", "targets": "--targets", "parts": "--train"}
    if given.get("full") and (wrong := [option for name, option in names.items() if name in given]):
        raise InputError(f"{wrong[0]} has no effect with --full, which trains every weight and no adapters")


def _recipe(name: str) -> Any:
    """The function `recipe` of one of our recipes, or of a Python file."""
    import importlib.util
    import sys

    file = Path(name)
    if name in registry.names("recipe"):
        module = registry.module(name, "recipe")
    elif not file.is_file():
        raise InputError(f"no such recipe: {name}; choose one of {', '.join(registry.names('recipe'))}, or give a Python file")
    else:
        spec = importlib.util.spec_from_file_location(f"recipe_{file.stem}", file)
        if spec is None or spec.loader is None:
            raise InputError(f"{file} is no Python file; give one with a function recipe(rope, target)")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    if not callable(make := getattr(module, "recipe", None)):
        raise InputError(f"{name} has no function recipe(rope, target) and is no recipe for tuning")
    return make


def _sentences(result: dict[str, Any], out: Path) -> str:
    lines = words(result)
    if result["target_loss"] is not None:
        lines += target_words(result["target_loss"], result["method"])
    if (saved := result["saved"]) is None:
        lines.append(f"Nothing was saved to {out}; --force saves it all the same.")
    else:
        how = "longreach.load applies the method, which longreach.json names"
        if saved["exported"]:
            checked = "" if saved["difference"] is None else f"; checked, logits differ by at most {saved['difference']:.1g}"
            how = f"transformers loads it without longreach{checked}"
        lines.append(f"Saved: {saved['folder']} ({how})")
        why = (
            f"The target was not measured ({result['not_measured']}); to do so"
            if result["not_measured"]
            else "To measure the target in full"
        )
        lines.append(f"{why}: {result['measure']}")
    return "\n".join([*lines, f"Loss curve: {result['loss_curve']}"])

"""Compares methods by one protocol: one base model, one set of data, one budget, the same questions.

Paper: A Controlled Study on Long Context Extension and Generalization in LLMs, 2024, arXiv:2409.12181
Cost: one evaluation a method, and, with --data, one tuning run each.   Limits: methods are compared at one setting each.
Differs from the paper: any base, data and budget; generated tasks; ranks come with paired intervals, and ties are called ties; whatever can
be tuned is (the paper leaves Self-Extend frozen).
"""

import json
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longreach.cli._options import AS_IT_IS, Loading, loads_model, open_rows
from longreach.cli._places import check_texts
from longreach.cli._tables import new_table, show
from longreach.core.errors import InputError, UnsupportedError
from longreach.core.lengths import parse_length
from longreach.core.method import MethodInfo
from longreach.core.spec import STOCK, check_names, split_specs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from longreach.core.progress import Progress
    from longreach.data.sources import Texts
    from longreach.training.plan import TuneConfig

INFO = MethodInfo(title="A Controlled Study on Long Context Extension and Generalization in LLMs", paper="arXiv:2409.12181")

_TASKS = "needle,passkey"
_PASSAGES = 20


@loads_model
def compare(
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, a hub id, or nano.")],
    to: Annotated[str, typer.Option(metavar="LENGTH", help="The target: 4096, 32k.")],
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="All methods of a kind, as positions, each as it suggests itself.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="These methods; may be repeated. A name alone means what it suggests.")
    ] = None,
    tasks: Annotated[str, typer.Option(metavar="SPEC,...", help="What to ask.")] = _TASKS,
    lengths: Annotated[
        str | None, typer.Option(metavar="LENGTHS", help="1k:64k or 1k,3000. [default: a quarter, a half and all of --to]")
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="Passages of each task and length.")] = _PASSAGES,
    seed: Annotated[int, typer.Option(min=0, help="Of questions, training and bootstrap.")] = 0,
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Real text, UTF-8; may be repeated. [default: this Python's documentation and held-out source]"),
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Tune the model under each method on these texts first.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of each tuning run. [default: 200]")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak rate of each tuning run. [default: 2e-4 for adapters, 2e-5 in full]")] = None,
    full: Annotated[bool, typer.Option("--full", help="Tune every weight instead of adapters.")] = False,
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For the tuning runs, which go on there. [default: longreach-results/compare-MODEL]")
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON Lines with the results so far. [default: longreach-results/rows/MODEL-compare.jsonl]"),
    ] = None,
    loading: Loading = AS_IT_IS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Rank methods on one model: the same questions, the same texts, and, with --data, the same budget of tuning. Says what is noise."""
    if (kind is None) == (method is None):
        raise InputError("name the methods with --kind KIND or --method SPEC" + (", not with both" if kind else ""))
    wanted = split_specs(method) if method else []
    check_names([name for name in wanted if name != STOCK])
    check_texts([*(text or ())] or None)
    for option, value in {"--steps": steps, "--lr": lr, "--full": full or None, "--work": work}.items():
        if data is None and value is not None:
            raise InputError(f"{option} has no effect without --data")
    target = parse_length(to)

    from longreach.cli._progress import BarProgress
    from longreach.core import registry
    from longreach.core.kinds import kinds
    from longreach.data.sources import read_folder
    from longreach.data.stdlib import stdlib_text
    from longreach.evaluation.evaluate import parse_lengths, parse_text_tasks
    from longreach.evaluation.text import read_texts
    from longreach.stretching.controlled import compare as run
    from longreach.stretching.controlled import comparison_json, frozen, specs_meant, specs_of

    if kind is not None and (kind not in kinds() or kinds()[kind].acts_on != "model" or not registry.names(kind)):
        names = ", ".join(name for name, one in kinds().items() if one.acts_on == "model")
        raise InputError(f"no such kind: {kind}; choose one of {names}")
    parse_text_tasks(tasks)
    texts = None if data is None else read_folder(data)
    asked = parse_lengths(lengths) if lengths else tuple(sorted({max(1, target // 4), max(1, target // 2), target}))
    name = loading.name(model)
    store = open_rows(rows, f"{name}-compare")
    base = loading.load(model, decoder_only=True)
    specs = specs_of(kind, base.model, target) if kind else specs_meant([each for each in wanted if each != STOCK], base.model, target)
    words = read_texts(text) if text else stdlib_text("held-out")
    tuned: dict[str, Any] | None = None if data is None else {"steps": steps or 200, "lr": lr, "full": full, "data": data.name}
    if tuned is not None:
        _check_tuning([spec for spec in specs if not frozen(spec)], base.model, target, tuned, seed)
    with BarProgress() as progress, warnings.catch_warnings():
        warnings.showwarning = lambda message, *place, **more: typer.echo(f"warning: {message}", err=True)

        def prepare(spec: str) -> "PreTrainedModel":
            if texts is None or tuned is None or frozen(spec):
                return base.model
            folder = work or Path("longreach-results", f"compare-{name.replace('/', '--')}")
            return _tuned(loading.load(model, decoder_only=True), texts, _config(spec, target, tuned, seed), folder, words, progress)

        found = run(
            prepare, base.tokenizer, ["", *specs], target=target, tasks=tasks, lengths=asked, passages=limit, seed=seed, text=words,
            name=name, rows=store, tuned=tuned, progress=progress,
        )  # fmt: skip
    _report(comparison_json(found, name, target, tuned), as_json)


def _check_tuning(specs: Iterable[str], model: "PreTrainedModel", target: int, tuned: Mapping[str, Any], seed: int) -> None:
    """Refuse, before anything is tuned, what cannot be tuned so; what the model does not take is left out later. Raises: InputError."""
    from longreach.training.plan import plan

    for spec in specs:
        with suppress(UnsupportedError):
            plan(model, _config(spec, target, tuned, seed))


def _config(spec: str, target: int, tuned: Mapping[str, Any], seed: int) -> "TuneConfig":
    from longreach.training.plan import TuneConfig

    rate = {} if tuned["lr"] is None else {"lr": tuned["lr"]}
    return TuneConfig(target=target, method=spec, steps=tuned["steps"], full=tuned["full"], seed=seed, **rate)


def _tuned(loaded: Any, texts: "Texts", config: "TuneConfig", folder: Path, held_out: str, progress: "Progress") -> "PreTrainedModel":
    """The model, tuned under a method on as much as every other, now or before."""
    from longreach.training.tune import tune

    run = folder / config.method.replace(":", "-").replace(",", "-").replace("=", "")
    tokenizer: PreTrainedTokenizerBase = loaded.tokenizer
    return tune(loaded.model, tokenizer, texts, config, run, held_out=held_out, tokens=folder / "tokens.npz", progress=progress).model


def _report(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(told, allow_nan=False))
        return
    from rich.console import Console

    from longreach.reports.comparison import comparison_cells, comparison_notes

    console = Console(highlight=False)
    if lines := comparison_cells(told):
        table = new_table(*lines[0], title=f"{told['model']} at {told['target']} tokens")
        for cells in lines:
            table.add_row(*cells.values())
        show(console, table)
    for note in comparison_notes(told):
        console.print(note, soft_wrap=True)

"""`longreach plan`: which methods fit into memory, what each takes, and about how fast it will be."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from longreach.checkpoints.choices import check_choices
from longreach.checkpoints.places import local_checkpoint
from longreach.cli._options import AllowPickle, Device, Dtype, Revision, TrustRemoteCode, parse_bytes
from longreach.cli._tables import new_table, show
from longreach.core.errors import InputError
from longreach.core.lengths import parse_length
from longreach.core.spec import check_spec, split_specs

if TYPE_CHECKING:
    from rich.table import Table

    from longreach.planning.plan import ResourcePlan


def plan(
    model: Annotated[str, typer.Argument(help="A folder (config.json is enough), a GGUF file, a hub id, or nano.")],
    context: Annotated[str, typer.Option(metavar="LENGTH", help="Tokens of each prompt: 4096, 32k, 1M.")],
    batch: Annotated[int, typer.Option(min=1, help="Texts at a time.")] = 1,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of the device: 24GiB, 24GB, 512MiB. [default: what is free now]")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="Look at this one only; may be repeated. [default: the model as it is, cache methods, and what stretches it so far]",
        ),
    ] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens written after the prompt.")] = 256,
    measure: Annotated[bool, typer.Option("--measure", help="Time a short run of the model itself, instead of an estimate.")] = False,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    allow_pickle: AllowPickle = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Tell which methods fit into memory for a text, what each takes and loses, and about how fast it is. No weights are needed."""
    check_choices(dtype, device, None, False, None)
    local_checkpoint(model, revision)
    tokens, room = parse_length(context), None if memory is None else parse_bytes(memory)
    if memory is not None and not room:
        raise InputError(f"--memory {memory} is no size; write 24GiB, 24GB or 512MiB")
    specs = split_specs(method) if method else None
    for spec in specs or ():
        check_spec(spec)

    from longreach.planning.plan import plan_memory

    found = plan_memory(
        model, context=tokens, batch=batch, memory=room, methods=specs, new_tokens=new_tokens, measure=measure, revision=revision,
        dtype=dtype, device=device, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code,
    )  # fmt: skip
    if as_json:
        print(json.dumps(asdict(found), allow_nan=False))
    else:
        _show(found)


def _show(found: "ResourcePlan") -> None:
    from rich.console import Console

    from longreach.checkpoints._safety import amount

    console = Console(highlight=False)

    def say(text: str, style: str | None = None) -> None:
        console.print(text, soft_wrap=True, markup=False, style=style)

    window = "no stated window" if found.window is None else f"window {found.window} tokens"
    say(f"{found.model}: {found.context} tokens, batch {found.batch}, {found.new_tokens} new tokens; {window}", "bold")
    where = "in its files" if found.weights_here else "by its config; its weights are not here"
    say(f"Weights: {amount(found.weights)} in {found.dtype} ({where}). Memory: {amount(found.memory)} on {found.device}.")
    if found.methods:
        show(console, _table(found))
    for line in _notes(found):
        say(line)


def _table(found: "ResourcePlan") -> "Table":
    """A row for each method; one for several where all their numbers are the same."""
    from longreach.planning.lines import lines_of

    lines = lines_of(found)
    table = new_table(*lines[0][1])
    for row, cells in lines:
        table.add_row(*cells.values(), style=None if row.fits and row.reaches else "dim")
    return table


def _notes(found: "ResourcePlan") -> list[str]:
    from longreach.planning.lines import OFF, alike

    lines = [f"{group[0].spec} and {', '.join(row.spec for row in group[1:])}: the same numbers." for group in alike(found) if group[1:]]
    lines.append("cache: where the prompt ends; after: once the new tokens are written. Measured on a small twin of the model.")
    lines.append(
        "peak: weights, cache, and one layer twice while it grows. A tenth of the memory is left for activations, which are not counted."
    )
    rates = f"{found.flops / 1e9:.3g} GFLOP/s and {found.reads / 1e9:.3g} GB/s"
    if found.measured_tokens is not None:
        lines.append(f"Speed: timed on {found.measured_tokens} tokens a text, which prefill is the time of; longer ones are slower.")
    else:
        lines.append(f"Speed: about, and at best, as if this machine did nothing but multiply and read memory ({rates}, just measured).")
    if any(not row.reaches for row in found.methods):
        lines.append("What does not reach can stand on what does: --method yarn:factor=auto+quantised")
    if any(row.error is not None and row.error >= OFF for row in found.methods):
        lines.append("~: the line that bytes are read off misses a third measurement by 2 % or more.")
    if found.refused:
        lines.append(f"Left out, for they cannot be run so: {', '.join(found.refused)}.")
    return lines

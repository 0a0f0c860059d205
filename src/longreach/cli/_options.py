"""Options that several verbs have, and what they make of them."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longreach.core.errors import InputError

if TYPE_CHECKING:
    from longreach.evaluation.rows import Rows

TrainedWindow = Annotated[
    str | None, typer.Option(metavar="LENGTH", help="Tokens trained on, where the checkpoint does not say or is wrong.")
]
ChunkSize = Annotated[int | None, typer.Option(help="Tokens a forward. [default: 512]")]
BatchSize = Annotated[int | None, typer.Option(help="Inputs a forward. [default: up to 8 for small models]")]
Depths = Annotated[str | None, typer.Option(metavar="D,D,...", help="Where facts stand. [default: 0,0.25,0.5,0.75,1]")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or auto.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="Load weights that exist only as pickle.")]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that the checkpoint brings.")]

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def model_name(model: str) -> str:
    """What rows and reports call a model: its folder's own name, or the hub id."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def open_rows(path: Path | None, name: str) -> "Rows":
    """The rows measured so far, by default those of the model of that name."""
    from longreach.evaluation.rows import Rows

    path = path or Path("longreach-rows", f"{name.replace('/', '--')}.jsonl")
    rows = Rows(path)
    if rows.healed:
        typer.echo(f"{path}: its last line was cut off when a run was stopped, and has been taken out", err=True)
    return rows


def parse_seconds(text: str) -> int | None:
    """Seconds from `90s`, `20m` or `2h`; None where it is no time."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smh])", text)
    return None if match is None else int(match[1]) * _SECONDS[match[2]]


def parse_depths(text: str | None) -> list[float] | None:
    """Numbers from `0,0.5,1`."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--depths {text}: not numbers; write 0,0.5,1") from None

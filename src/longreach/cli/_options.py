"""Options that several verbs have, and what they make of them."""

import inspect
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

import longreach
from longreach.checkpoints.choices import check_bits, check_choices
from longreach.checkpoints.hub import is_id, name_and_revision
from longreach.checkpoints.places import checkpoint_name, local_checkpoint
from longreach.cli._panels import LOADING, SAMPLING, SPEED
from longreach.core.errors import CheckpointError, InputError
from longreach.core.spec import STOCK, check_spec, split_specs

if TYPE_CHECKING:
    from longreach.checkpoints.checkpoint import Checkpoint
    from longreach.evaluation.rows import Rows


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}

TrainedWindow = Annotated[
    str | None, typer.Option(metavar="LENGTH", help="Tokens trained on, where the checkpoint does not say or is wrong.")
]
ChunkSize = Annotated[int | None, typer.Option(min=1, help="Tokens a forward. [default: 512]", rich_help_panel=SPEED)]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Inputs a forward. [default: up to 8 for small models]", rich_help_panel=SPEED)]
Depths = Annotated[str | None, typer.Option(metavar="D,D,...", help="Where facts stand. [default: 0,0.25,0.5,0.75,1]")]
Revision = Annotated[str | None, typer.Option(metavar="NAME", help="Branch, tag or commit of a hub model.", rich_help_panel=LOADING)]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or auto.", rich_help_panel=LOADING)]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", rich_help_panel=LOADING)]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="Load weights that exist only as pickle.", rich_help_panel=LOADING)]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that the checkpoint brings.", rich_help_panel=LOADING)]
MaxNewTokens = Annotated[
    str | None,
    typer.Option(metavar="N", help="Tokens to write at most. [default: 256; no end under a method that bounds memory, as sinks]"),
]
Temperature = Annotated[
    float, typer.Option(help="0 always takes the likeliest token; above 0, tokens are drawn.", rich_help_panel=SAMPLING)
]
TopP = Annotated[
    float | None, typer.Option(help="Draw from the likeliest tokens that reach this probability together.", rich_help_panel=SAMPLING)
]
TopK = Annotated[int | None, typer.Option(help="Draw from so many likeliest tokens.", rich_help_panel=SAMPLING)]
Seed = Annotated[int | None, typer.Option(min=0, help="Makes drawing repeatable.", rich_help_panel=SAMPLING)]


@dataclass(frozen=True)
class Loading:
    """How a verb loads its MODEL: one field for each option."""

    revision: Revision = None
    adapter: Annotated[
        str | None, typer.Option(metavar="DIR", help="A PEFT adapter (folder or hub id), merged into the weights.", rich_help_panel=LOADING)
    ] = None
    dtype: Dtype = None
    device: Device = None
    device_map: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Spread the weights over all devices: auto, balanced or sequential.", rich_help_panel=LOADING),
    ] = None
    load_in_4bit: Annotated[
        bool, typer.Option("--load-in-4bit", help="Quantize the weights to 4 bits (needs bitsandbytes).", rich_help_panel=LOADING)
    ] = False
    allow_pickle: AllowPickle = False
    trust_remote_code: TrustRemoteCode = False

    def check(self, model: str) -> None:
        """Refuse at once what `load` would refuse once torch is there: a folder that is not, and options that cannot be."""
        check_choices(self.dtype, self.device, self.device_map, self.load_in_4bit, self.adapter)
        check_bits(local_checkpoint(model, self.revision), self.load_in_4bit)
        if self.adapter and not Path(self.adapter).expanduser().is_dir() and not is_id(name_and_revision(self.adapter)[0]):
            raise CheckpointError(f"no such folder: {self.adapter}")

    def load(self, model: str, **more: Any) -> "Checkpoint":
        """The checkpoint. Args: more: other arguments of `longreach.load`, which win."""
        return longreach.load(model, **{**asdict(self), **more})

    def arguments(self) -> dict[str, Any]:
        """What was given, as arguments of `longreach.load`."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}

    def given(self) -> list[str]:
        """The options that were given."""
        return [f"--{name.replace('_', '-')}" for name in self.arguments()]

    def name(self, model: str) -> str:
        """What rows and reports call the model that is loaded so."""
        return "+".join([checkpoint_name(model, self.revision), *([checkpoint_name(self.adapter)] if self.adapter else [])])


AS_IT_IS = Loading()


def loads_model(verb: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb the options of `Loading` in place of its parameter `loading`."""
    hints = get_type_hints(Loading, include_extras=True)
    options = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in fields(Loading)
    ]
    own = inspect.signature(verb).parameters.values()
    given = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    at = [one.name for one in given].index("loading")

    @wraps(verb)
    def command(**values: Any) -> None:
        loading = Loading(**{option.name: values.pop(option.name) for option in options})
        if values["model"] is not None:
            loading.check(values["model"])
        verb(loading=loading, **values)

    parameters = [*given[:at], *options, *given[at + 1 :]]
    command.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def open_rows(path: Path | None, name: str) -> "Rows":
    """The rows measured so far, by default those of the model of that name."""
    from longreach.evaluation.rows import Rows

    path = path or Path("longreach-results/rows", f"{name.replace('/', '--')}.jsonl")
    rows = Rows(path)
    if rows.healed:
        typer.echo(f"{path}: its last line was cut off when a run was stopped, and has been taken out", err=True)
    return rows


def methods_named(given: list[str] | None) -> list[str]:
    """The specs of a --method that may be repeated, each once; "" is `stock`, the model as it is, and meant where nothing is given.

    Raises: InputError for one that is named twice; SpecError for one that does not parse.
    """
    specs = ["" if spec == STOCK else spec for spec in split_specs(given)] if given else [""]
    if len(set(specs)) < len(specs):
        raise InputError("--method: one of them is named twice")
    for spec in specs:
        if spec:
            check_spec(spec)
    return specs


def parse_seconds(text: str) -> int | None:
    """Seconds from `90s`, `20m`, `2h` or `30d`; None where it is no time."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    return None if match is None else int(match[1]) * _SECONDS[match[2]]


def seconds_of(option: str, text: str) -> int:
    """Seconds that an option is given. Raises: InputError for what is no time."""
    seconds = parse_seconds(text)
    if seconds is None:
        raise InputError(f"{option} {text}: no time; write 90s, 20m or 2h")
    return seconds


def parse_bytes(text: str) -> int | None:
    """Bytes from `10GiB`, `500MB` or `0`; None where it is no size."""
    match = re.fullmatch(r"([0-9]{1,15})(?:\.([0-9]{1,6}))? ?([kmgt]i?b)?", text.strip(), re.IGNORECASE)
    if match is None:
        return None
    fraction = match[2] or ""
    return int(match[1] + fraction) * _BYTES[(match[3] or "").lower()] // 10 ** len(fraction)


def parse_depths(text: str | None) -> list[float] | None:
    """Numbers from `0,0.5,1`."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--depths {text}: not numbers; write 0,0.5,1") from None

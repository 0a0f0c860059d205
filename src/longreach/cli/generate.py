"""`longreach generate`: writes on from a prompt of any length."""

import io
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import longreach
from longreach.cli._options import AS_IT_IS, Loading, loads_model
from longreach.core.errors import InputError
from longreach.core.lengths import parse_length
from longreach.core.spec import check_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from longreach.core.method import Method

_NEW_TOKENS = 256  # without a method that bounds memory


@loads_model
def generate(
    model: Annotated[str, typer.Argument(help="A folder, a hub id, or nano.")],
    source: Annotated[str | None, typer.Argument(metavar="[-]", help="- reads the prompt from standard input.")] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="The prompt.")] = None,
    file: Annotated[Path | None, typer.Option(metavar="FILE", help="The prompt as a file, UTF-8.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Write under a method, as yarn:factor=8, instead of the checkpoint's own. factor=auto: as prompt and answer need it.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        str | None,
        typer.Option(metavar="N", help="Tokens to write at most. [default: 256; no end under a method that bounds memory, as sinks]"),
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token; above 0, tokens are drawn.")] = 0.0,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest tokens that reach this probability together.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many likeliest tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes drawing repeatable.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Give the prompt as a user's message, in the checkpoint's chat template.")] = False,
    chunk_size: Annotated[int | None, typer.Option(min=1, help="Tokens of the prompt read at a time. [default: 512]")] = None,
    loading: Loading = AS_IT_IS,
) -> None:
    """Write on from a prompt, as it is produced, until the model ends its text or Ctrl-C. The prompt is read whole, in chunks."""
    words = _read_prompt(source, prompt, file)
    most = None if max_new_tokens is None else parse_length(max_new_tokens)

    from longreach.cli._progress import BarProgress
    from longreach.core.spec import stack_of
    from longreach.decoding.generation import Sampling, prompt_ids, stream
    from longreach.decoding.reading import CHUNK

    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    if method:
        check_spec(method)
    loaded = loading.load(model, apply_method=method is None)
    if chunk_size is not None and loaded.model.config.is_encoder_decoder:
        raise InputError(f"--chunk-size has no effect on {model}: an encoder reads its text whole")
    record = vars(loaded.model).get("longreach_record")
    ids = prompt_ids(loaded.tokenizer, words, chat=chat)
    stack = _stack(method, loaded.model, ids.shape[1], most)
    active = stack_of(record.method) if method is None and record is not None and not record.exported else stack
    bounded = any(each.info.bounded_memory for each in active)
    if most is None and bounded and method and _is_auto(method):
        raise InputError("--method with factor=auto has to know where the text ends; give --max-new-tokens, or the factor as a number")
    if most is None and not bounded:
        most = _NEW_TOKENS
    _check_length(loaded.model, model, ids.shape[1], most, quiet=bool(stack) or bounded)
    _check_reach(loaded.model, active, ids.shape[1], most)
    with longreach.apply(loaded.model, stack):
        with BarProgress() as progress:
            size = CHUNK if chunk_size is None else chunk_size
            pieces = stream(*loaded, ids, max_new_tokens=most, sampling=sampling, chunk_size=size, progress=progress)
            first = next(pieces, "")
        _print(chain([first], pieces))


def _is_auto(method: str) -> bool:
    return "=auto" in method.replace(" ", "")


def _stack(method: str | None, model: "PreTrainedModel", read: int, most: int | None) -> "tuple[Method, ...]":
    """The methods to write under; `factor=auto`, and a method without settings, reach the end of what is read and written."""
    from longreach.core.spec import stack_of
    from longreach.engine.window import stated_window

    window = stated_window(model.config)
    return stack_of(method, trained_window=window, target=None if window is None else read + (_NEW_TOKENS if most is None else most))


def _read_prompt(source: str | None, prompt: str | None, file: Path | None) -> str:
    """The prompt, from the one place that is given."""
    if source not in (None, "-"):
        raise InputError(f"unexpected {source!r}; give a text with --prompt, a file with --file, or - for standard input")
    if sum(given is not None for given in (source, prompt, file)) != 1:
        raise InputError("give the prompt in one place: --prompt TEXT, --file FILE, or - for standard input")
    if prompt is not None:
        return prompt
    name = "standard input" if file is None else str(file)
    try:
        data = sys.stdin.buffer.read() if file is None else file.read_bytes()
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None


def _check_length(model: "PreTrainedModel", name: str, read: int, written: int | None, *, quiet: bool) -> None:
    """Warn where prompt and answer go beyond what the checkpoint was made for; refuse where it has no positions for them."""
    from longreach.checkpoints.intended import intended_window
    from longreach.engine.window import position_limit

    two_sided = model.config.is_encoder_decoder
    total = max(read, written or 0) if two_sided else read + (written or 0)
    limit = position_limit(model)
    if limit is not None and two_sided and total > limit:
        raise InputError(f"{name} has positions for {limit} tokens to read and {limit} to write; this is {read} and up to {written}")
    if limit is not None and (written is None or total > limit):
        room = f"{limit - read} can be written" if limit > read else "nothing can be written"
        raise InputError(f"{name} has positions for {limit} tokens and no more; the prompt has {read}, so {room}")
    window = intended_window(model)
    if window is not None and total > window and not quiet:
        way = f"fit {name} attention_alignment --to {total}" if two_sided else f"stretch {name} --to {total} --out DIR"
        typer.echo(
            f"warning: {read} tokens read and up to {written} written go beyond the {window} that {name} is made for, where its text "
            f"falls apart; `longreach {way}` extends it",
            err=True,
        )


def _check_reach(model: "PreTrainedModel", stack: "Sequence[Method]", read: int, written: int | None) -> None:
    """Warn where prompt and answer go beyond what the methods reach."""
    import warnings

    from longreach.engine.reach import reach_of
    from longreach.engine.window import stated_window

    warnings.filterwarnings("ignore", message=".* tokens are read under")  # said here, of the whole text, and once
    window = stated_window(model.config)
    if not stack or window is None or model.config.is_encoder_decoder:
        return
    reach = reach_of(stack, window)
    if reach is not None and (written is None or read + written > reach):
        spec, more = "+".join(method.spec for method in stack), "as many as you let it" if written is None else f"up to {written}"
        typer.echo(
            f"warning: {read} tokens read and {more} written go beyond the {reach} that {spec} reaches, where the text falls apart",
            err=True,
        )


def _print(pieces: chain[str]) -> None:
    """Print each piece as it comes, as UTF-8 whatever the locale says; the last line is ended also when Ctrl-C stops it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:
        sys.stdout.write("\n")
        sys.stdout.flush()

"""`longreach serve`: a server that speaks OpenAI's protocol, for one model."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longreach.cli._options import AS_IT_IS, Loading, loads_model, methods_named, parse_bytes, seconds_of
from longreach.core.errors import InputError, SpecError
from longreach.core.lengths import parse_length
from longreach.core.spec import STOCK, stack_of

if TYPE_CHECKING:
    from longreach.serving.service import Service

_KEY = "LONGREACH_SERVE_KEY"
_LOCAL = ("127.0.0.1", "localhost", "::1")


@loads_model
def serve(
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, a hub id, or nano.")],
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="Serve long requests under a method, as yarn:factor=8; short ones run on the model as it is. May be repeated: each "
            "request gets the smallest window that holds it.",
        ),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="LENGTH", help="Tokens to reach, for methods without settings.")] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 is everywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What clients call the model. [default: its folder's or file's]")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Keys, one a line, of which each request has to have one; or set {_KEY}.")
    ] = None,
    chunk_size: Annotated[int, typer.Option(min=1, help="Tokens of prompts read between two tokens of the answers.")] = 512,
    max_tokens_in_flight: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="Tokens in the caches of all requests. [default: four of the largest windows]")
    ] = None,
    max_running: Annotated[int, typer.Option(min=1, help="Requests that are read and written at a time.")] = 32,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that wait besides; more get status 429.")] = 256,
    reuse: Annotated[str, typer.Option(metavar="SIZE", help="Memory for what was read of prompts, for others that begin alike.")] = "1GiB",
    max_body: Annotated[str, typer.Option(metavar="SIZE", help="The largest request.")] = "32MiB",
    max_files: Annotated[str, typer.Option(metavar="SIZE", help="Memory for uploaded files, together.")] = "64MiB",
    library: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Let clients ask about the documents of a library, without sending or reading them again."),
    ] = None,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="What a request may take, as 10m. [default: any time]")] = None,
    grace: Annotated[str, typer.Option(metavar="TIME", help="What is under way may go on for so long when the server ends.")] = "5s",
    card: Annotated[Path | None, typer.Option(metavar="FILE", help="The model's card as JSON, which clients are shown.")] = None,
    loading: Loading = AS_IT_IS,
) -> None:
    """Serve a model to any client of OpenAI's protocol, many requests at a time, with a page to try it on. Ctrl-C ends it."""
    specs = [spec for spec in (methods_named(method) if method else []) if spec]
    target = _target(specs, to)
    sizes = {option: _bytes(option, text) for option, text in (("--reuse", reuse), ("--max-body", max_body), ("--max-files", max_files))}
    seconds = None if timeout is None else seconds_of("--timeout", timeout)
    leave = seconds_of("--grace", grace)
    in_flight = None if max_tokens_in_flight is None else parse_length(max_tokens_in_flight)
    keys, shown = _keys(api_key_file), _card(card)
    if library is not None and not library.is_dir():
        raise InputError(f"--library {library}: no such folder; `longreach library add DOC --model M --library FOLDER` makes one")
    _check_packages()

    from longreach.serving.profiles import Profiles
    from longreach.serving.run import ServiceServer
    from longreach.serving.service import Limits, make_service
    from longreach.serving.shelved import ServedLibrary
    from longreach.serving.workflow import read_document

    loaded = loading.load(model, apply_method=not method)
    profiles = Profiles(loaded.model, loaded.tokenizer, specs, target=target)
    service = make_service(
        name or loading.name(model),
        profiles,
        loaded.tokenizer,
        file_bytes=sizes["--max-files"],
        library=None if library is None else ServedLibrary(library, profiles, loaded.tokenizer),
        limits=Limits(body=sizes["--max-body"], seconds=seconds, grace=leave),
        keys=keys,
        card=shown,
        read_document=read_document,
        chunk_size=chunk_size,
        most_tokens=in_flight or profiles.room,
        most_running=max_running,
        most_waiting=max_waiting,
        reuse_bytes=sizes["--reuse"],
    )
    if host not in _LOCAL and not keys:
        typer.echo(f"warning: anybody who reaches {host} can use this server; give --api-key-file, or set {_KEY}", err=True)
    server = ServiceServer(service, host=host, port=port, ready=lambda url: _announce(url, service))
    server.serve_until_signal()
    profiles.close()


def _announce(url: str, service: "Service") -> None:
    windows = ", ".join(f"{each.window or 'any'} tokens{f' under {each.method}' if each.method else ''}" for each in service.profiles.all)
    print(f"{service.name} ({windows}) is served at {url} (API: {url}/v1)", flush=True)


def _target(specs: list[str], to: str | None) -> int | None:
    """Tokens to reach. Raises: InputError where methods need them and they are missing, or the other way round."""
    target = None if to is None else parse_length(to)
    open_ones = []
    for spec in specs:
        try:
            stack_of(spec)
        except SpecError:  # checked already: its settings are left to the length
            open_ones.append(spec)
    if open_ones and target is None:
        raise InputError(f"--method {open_ones[0]} has to know how far to reach; give --to LENGTH, or write its settings")
    if target is not None and not open_ones:
        raise InputError(
            f"--to has no effect without a method that is left open, as --method yarn:factor=auto ({STOCK} reaches what it does)"
        )
    return target


def _bytes(option: str, text: str) -> int:
    size = parse_bytes(text)
    if size is None:
        raise InputError(f"{option} {text}: no size; write 500MB or 2GiB")
    return size


def _keys(file: Path | None) -> tuple[str, ...]:
    """The keys of a file and the environment. Raises: InputError for a file without any."""
    found = [os.environ[_KEY].strip()] if os.environ.get(_KEY, "").strip() else []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read --api-key-file {file}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None
        given = [line.strip() for line in lines if line.strip()]
        if not given:
            raise InputError(f"--api-key-file {file} has no key")
        found += given
    return tuple(found)


def _card(file: Path | None) -> dict[str, Any] | None:
    """A card. Raises: InputError for what is none."""
    if file is None:
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read --card {file}: {error.strerror}") from None
    except ValueError:
        raise InputError(f"--card {file} is not JSON; `longreach card` writes one") from None
    if not isinstance(found, dict):
        raise InputError(f"--card {file} is no card; `longreach card` writes one")
    return found


def _check_packages() -> None:
    """Refuse early where the extra is not installed."""
    from importlib.util import find_spec

    missing = [module for module in ("fastapi", "uvicorn", "python_multipart") if find_spec(module) is None]
    if missing:
        raise InputError(f"serving needs {', '.join(missing)}; run: {Path(sys.executable).name} -m pip install 'longreach[serve]'")

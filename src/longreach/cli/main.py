"""The `longreach` command: finds the verbs, runs one, and turns what users should be told into one line.

A verb is a module of this package with a function of the same name, or a `Typer` of that name with several. It imports nothing heavy at its
top, so that help is instant.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

import longreach
from longreach.cli._panels import Panelled
from longreach.core import registry
from longreach.core.errors import LongreachError

_SETTINGS = {"help_option_names": ["--help", "-h"]}
_STOPPED = 130  # what shells expect of a program that Ctrl-C ended


class _Verbs(TyperGroup):
    """Lists verbs by name, whether there is one in them or several."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx))


def verbs() -> list[str]:
    """The modules of this package that are verbs, and those of other packages that joined."""
    return registry.names("command")


def make_app(names: Sequence[str] | None = None) -> typer.Typer:
    """The command line with every verb, or with these: `cli/some_verb.py` is `longreach some-verb`."""
    # Markup stays off: it would swallow brackets in the verbs' help.
    app = typer.Typer(cls=_Verbs, context_settings=_SETTINGS, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(_root)
    for name in verbs() if names is None else names:
        verb, called = getattr(registry.module(name, "command"), name), name.replace("_", "-")
        if isinstance(verb, typer.Typer):
            for command in verb.registered_commands:
                command.cls = Panelled if command.cls is TyperCommand else command.cls
            app.add_typer(verb, name=called)
        else:
            app.command(called, cls=Panelled, context_settings=_SETTINGS)(verb)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code: 2 where the user has to change something, 130 after Ctrl-C."""
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
        return code
    except TyperException as error:
        place = getattr(error, "ctx", None)
        return _refuse(f"{error.format_message().rstrip('.')}; see {place.command_path if place else 'longreach'} --help")
    except LongreachError as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, typer.Abort):
        print("stopped", file=sys.stderr)
        return _STOPPED
    except BrokenPipeError:  # the reader (`| head`) has seen enough; nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def main() -> None:
    """Entry point of the `longreach` script."""
    sys.exit(run(sys.argv[1:]))


def _invoke(arguments: Sequence[str]) -> int:
    asked = [name for name in verbs() if name.replace("_", "-") in arguments[:1]]  # the others would be read for nothing
    command = typer.main.get_command(make_app(asked or None))
    try:
        with command.make_context("longreach", list(arguments) or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as done:  # of `--help` and `--version`, too
        return done.exit_code
    return 0


def _version(wanted: bool) -> None:
    if wanted:
        print(f"longreach {longreach.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_version)] = False,
) -> None:
    """Makes any language model work at any length: measures its reach, extends its window, reads and writes past it."""
    _quieten_libraries()


def _quieten_libraries() -> None:
    """Keep transformers' advice and its bars for loading weights off the screen; bars of downloads stay. What users set wins."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ:
        from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

        disable_progress_bars()  # transformers asks this when it is imported
        enable_progress_bars("huggingface_hub")


def _refuse(message: str) -> int:
    print("error:", " ".join(message.splitlines()), file=sys.stderr)
    return 2

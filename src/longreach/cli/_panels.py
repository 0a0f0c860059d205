"""Panels: the parts into which the help of a verb with many options is divided. An option names its own by `rich_help_panel`."""

from typing import Any

from typer.core import TyperCommand

LOADING = "Loading the model"
ENDPOINT = "An endpoint in place of a model"
SAMPLING = "How text is drawn"
PASSAGES = "Passages and questions"
JUDGE = "A judge"
WORKFLOW = "A workflow that reads"
LIMITS = "What it may cost"
FILES = "Files"
SPEED = "How it runs"

_REST = "Options"


class Panelled(TyperCommand):
    """Shows the options of each panel under its name, those without one first. The help stays plain text."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, and options by panel, in the order in which the verb has them."""
        parts: dict[str, list[tuple[str, str]]] = {"Arguments": [], _REST: []}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                panel = "Arguments" if param.param_type_name == "argument" else getattr(param, "rich_help_panel", None) or _REST
                parts.setdefault(panel, []).append(record)
        for panel, records in parts.items():
            if records:
                with formatter.section(panel):
                    formatter.write_dl(records)

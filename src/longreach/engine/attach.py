"""Applies methods to a model until they are taken off: for programs that cannot keep a `with` block open."""

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from longreach.core.method import Method
from longreach.engine.apply import apply


class Attached:
    """Methods that are applied to a model. Args: undo: what takes them off."""

    def __init__(self, undo: ExitStack) -> None:
        self._undo = undo

    def detach(self) -> None:
        """Take the methods off; the model is what it was. A second time does nothing."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()


def attach(model: Any, methods: str | Method | Sequence[str | Method], **options: Any) -> Attached:
    """Apply methods to a model from now on: `handle = longreach.attach(model, "log_n")`, and later `handle.detach()`.

    Args and errors: those of `longreach.apply`.
    """
    with ExitStack() as undo:
        undo.enter_context(apply(model, methods, **options))
        return Attached(undo.pop_all())

"""Documents that a model has read, kept on disk: the next question about one costs no reading."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longreach.library.library import Library

__all__ = ["Library"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'longreach.library' has no attribute {name!r}")
    from longreach.library import library  # brings torch

    return getattr(library, name)

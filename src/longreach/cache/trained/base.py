"""The contracts of caches that a model is trained to use in a way of its own."""

from abc import abstractmethod
from dataclasses import dataclass

from longreach.cache.base import CachePolicy


@dataclass(frozen=True, kw_only=True)
class AmongTexts(CachePolicy):
    """A policy whose model is trained among texts: queries also meet keys of other texts of the batch, in the bands that are `shared`.

    Nothing but training differs by that: a trained model reads each text by itself.
    """

    @abstractmethod
    def texts_at(self, progress: float) -> int:
        """Texts whose keys a query meets in training, its own included. Args: progress: the share of the steps that are done, [0, 1)."""


@dataclass(frozen=True, kw_only=True)
class Recurrent(CachePolicy):
    """A policy that carries something on from window to window."""

    @property
    @abstractmethod
    def feeds_back(self) -> bool:
        """Whether what is carried hangs on what was carried before: then rounding may grow with the text, as in any recurrence."""

"""Whether a model takes methods, found by applying them."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from longreach.core.errors import UnsupportedError
from longreach.core.method import Method
from longreach.engine.apply import apply


def refusal(model: PreTrainedModel, stack: Sequence[Method]) -> UnsupportedError | None:
    """Why a model cannot be run under a stack of methods; None where it can."""
    try:
        with apply(model, stack):
            return None
    except UnsupportedError as error:
        return error

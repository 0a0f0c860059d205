"""Methods that a checkpoint was saved with: applied for as long as the model lives, and taken off while it is saved or copied."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from transformers import PreTrainedModel

from longreach.checkpoints.record import Record
from longreach.core.errors import InputError
from longreach.engine.apply import applied, apply


def keep(model: PreTrainedModel, record: Record) -> None:
    """Apply the record's method for good: `model.longreach_undo.close()` takes it off, and copies of the model have it, too."""
    undo = ExitStack()
    undo.enter_context(apply(model, record.method))
    attributes = {"longreach_undo": undo, "longreach_record": record, "__deepcopy__": lambda memo: _copied(model, memo)}
    vars(model).update(attributes)
    for name in attributes:
        undo.callback(vars(model).pop, name, None)


@contextmanager
def as_loaded(model: PreTrainedModel) -> Iterator[None]:
    """Inside, a method that `keep` applied is taken off, so that the checkpoint itself is there.

    Raises: InputError where another method is applied.
    """
    if not (spec := applied(model)):
        yield
        return
    undo: ExitStack | None = vars(model).get("longreach_undo")
    if undo is None:
        raise InputError(f"{spec} is applied to the model; leave it first, and name it as the method to save with")
    record = vars(model)["longreach_record"]
    undo.close()
    vars(model)["longreach_record"] = record
    try:
        yield
    finally:
        keep(model, record)


def _copied(model: PreTrainedModel, memo: dict[int, Any]) -> PreTrainedModel:
    record = vars(model)["longreach_record"]
    with as_loaded(model):
        twin = copy.deepcopy(model, memo)
    keep(twin, record)
    return twin

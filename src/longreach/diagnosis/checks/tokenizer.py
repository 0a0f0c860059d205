"""Whether the tokenizer lets texts through that are as long as the window."""

from collections.abc import Iterator

from longreach.diagnosis.base import TOKENIZER, Edit, Finding, Patient, Severity

_NO_LIMIT = 10**9  # above it, model_max_length is the placeholder of a tokenizer that states no limit
_ROOM = 2  # rows that some tables of positions keep for padding


def check(patient: Patient) -> Iterator[Finding]:
    """`model_max_length` below the window, or above a table of positions."""
    if not patient.tokenizer or patient.window is None:
        return
    length, window = patient.tokenizer.get("model_max_length"), patient.window
    length = length if isinstance(length, int | float) and 0 < length < _NO_LIMIT else None
    edits = (Edit(file=TOKENIZER, path=("model_max_length",), value=window),)
    if length is not None and length < window - _ROOM and not (patient.record is not None and not patient.record.exported):
        yield Finding(
            severity=Severity.WARNING,
            what=f"the tokenizer cuts texts at {length:g} tokens wherever truncation is on, and the window is {window}",
            remedy=f"set model_max_length to {window} in tokenizer_config.json",
            edits=edits,
        )
    elif patient.used.kind in ("learned", "a table") and (length is None or length > window):
        yield Finding(
            severity=Severity.WARNING,
            what=f"the model has {window} positions and no more, and the tokenizer lets longer texts through, which fail",
            remedy=f"set model_max_length to {window} in tokenizer_config.json",
            edits=edits,
        )
    elif length is not None and length > window:
        yield Finding(
            severity=Severity.NOTE,
            what=f"the tokenizer lets texts of {length:g} tokens through, and config.json names a window of {window}",
            remedy="`longreach measure` shows which one the model reaches",
        )

"""How positions enter the model, and how far its layers look."""

from collections import Counter
from collections.abc import Iterator

from longreach.diagnosis.base import Finding, Patient, Severity

_MEASURE = "no rope scaling applies; `longreach measure` shows its reach"
_ENCODER = "no rope scaling applies; `longreach fit MODEL attention_alignment --to LENGTH` keeps its attention sharp over longer texts"
_LENGTHEN = (
    "the table can be lengthened by stretch_positions, interpolated_positions, grouped_positions or recurrent_positions: "
    'longreach.apply(model, "stretch_positions:factor=4"), or for a model that writes `longreach stretch MODEL --to LENGTH`'
)
_KINDS = {
    "learned": (
        "learned positions: a table of {window} rows, and no position after the last",
        _LENGTHEN,
    ),
    "a table": ("positions from a fixed table of {window} rows", "no rope scaling of the config applies"),
    "linear biases": (
        "linear biases on distances (ALiBi) and no rotary embedding",
        "no rope scaling applies; `longreach measure` shows its reach",
    ),
    "relative biases": (
        "learned biases on distances and no rotary embedding",
        "no rope scaling applies; `longreach measure` shows its reach",
    ),
    "none": ("no positions of its own (recurrent layers, or none at all)", _MEASURE),
}


def check(patient: Patient) -> Iterator[Finding]:
    """What kind of positions the model has where they are not rotary, and its sliding windows."""
    if (kind := _KINDS.get(patient.used.kind)) is not None:
        remedy = _ENCODER if kind is _KINDS["relative biases"] and getattr(patient.used.config, "is_encoder_decoder", False) else kind[1]
        yield Finding(severity=Severity.NOTE, what=f"the model has {kind[0].format(window=patient.window)}", remedy=remedy)
    text = patient.used.text
    sliding = getattr(text, "sliding_window", None)
    if not isinstance(sliding, int) or patient.window is None or sliding >= patient.window:
        return
    counts = Counter(getattr(text, "layer_types", None) or ())
    some = f"{counts['sliding_attention']} of {sum(counts.values())}" if counts else "all"
    if not counts or counts["sliding_attention"]:
        yield Finding(
            severity=Severity.NOTE,
            what=f"{some} layers see the last {sliding} tokens only",
            remedy="what lies further back reaches them through other tokens or layers alone; `longreach measure` shows how well",
        )

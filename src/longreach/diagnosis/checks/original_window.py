"""Whether scaling that depends on the original window states it."""

from collections.abc import Iterator

from longreach.diagnosis.base import Finding, Patient, Severity, of
from longreach.diagnosis.stated import ORIGINAL

_NEEDED_BY = ("yarn", "llama3", "longrope")


def check(patient: Patient) -> Iterator[Finding]:
    """An original window that transformers has to guess."""
    for layer_type, said, _ in patient.pairs:
        if said.rope_type not in _NEEDED_BY or ORIGINAL in said.claims or patient.window is None:
            continue
        trained = patient.record.trained_window if patient.record is not None else None
        # A tokenizer that is made for factor times the window says that the window itself was not multiplied.
        factor, tokenizer = said.get("factor"), patient.tokenizer.get("model_max_length")
        original = trained or (patient.window if isinstance(factor, int | float) and tokenizer == patient.window * factor else None)
        parameters = {**said.parameters, ORIGINAL: original}
        known = original is not None and layer_type is None and "rope_theta" in parameters
        yield Finding(
            severity=Severity.WARNING,
            what=f"{said.rope_type}{of(layer_type)} does not state its original window; transformers takes max_position_embeddings "
            f"({patient.window}) for it",
            remedy=f"state {f'{original:g}' if known else 'the tokens before the extension'} as {ORIGINAL} in rope_parameters",
            edits=patient.edit({"rope_parameters": parameters, "rope_scaling": None}) if known else (),
        )

"""Writes what a config states of rotary embeddings so that every reader sees the same."""

from typing import Any

from longreach.checkpoints.spelling import spelled_out
from longreach.diagnosis.base import Edit, Patient
from longreach.diagnosis.stated import ORIGINAL, Stated, is_number, same

_OF_MODEL = ("rope_theta", "partial_rotary_factor")  # what transformers 4 keeps beside `rope_scaling`, not in it


def respelling(patient: Patient) -> tuple[Edit, ...]:
    """Edits that write what is stated as `rope_parameters`, and as `rope_theta` and `rope_scaling` for readers older than transformers 5.

    Nothing where nobody can tell what was meant: settings or bases with two values, or layer types told apart that the family does not.
    """
    stated, types = patient.stated, patient.used.layer_types
    if any(said.unclear or two_bases(patient, said) for said in stated.values()):
        return ()
    flat = None in types or not types
    if flat and None not in stated:
        if len({repr(sorted(said.parameters.items(), key=repr)) for said in stated.values()}) > 1:
            return ()
        stated = {None: next(iter(stated.values()))}
    whole = {key: _complete(patient, key, said) for key, said in stated.items()}
    if not flat:
        return patient.edit(spelled_out({str(key): whole.get(key, patient.used.ropes[key].parameters) for key in types}, patient.text))
    if "rope_theta" not in whole[None] and patient.used.ropes:  # null: the family's default would take its place
        return ()
    family = None if patient.used.text is None else type(patient.used.text)
    return patient.edit(spelled_out(whole[None], patient.text, family))


def two_bases(patient: Patient, said: Stated) -> bool:
    """Whether several bases are stated, and none is the default that programs write into configs that they do not understand."""
    claims = said.conflicts("rope_theta")
    return bool(claims) and not any(same(claim.value, patient.used.default_theta) for claim in claims)


def _complete(patient: Patient, key: str | None, said: Stated) -> dict[str, Any]:
    """What is stated, as numbers, with what transformers adds to it."""
    used = patient.used.ropes.get(key)
    found = {name: _number(value) for name, value in said.parameters.items()}
    for name in _OF_MODEL:
        if name not in found and used is not None and used.parameters.get(name) is not None:
            found[name] = used.parameters[name]
    if found["rope_type"] == "yarn" and "factor" not in found and patient.window and is_number(found.get(ORIGINAL)) and found[ORIGINAL] > 0:
        found["factor"] = patient.window / found[ORIGINAL]
    return found


def _number(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value

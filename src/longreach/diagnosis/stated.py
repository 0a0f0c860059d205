"""What config.json says about rotary embeddings, in every spelling that transformers and its relatives have used.

`rope_parameters` (transformers 5, one dict or one a layer type); `rope_scaling` with `rope_type` or `type` beside `rope_theta`
(transformers 4); `rotary_emb_base` and `rotary_pct` (GPT-NeoX); `rotary_base`, `rope_base`, `global_rope_theta`, `rope_local_base_freq`,
`local_rope_theta`; `original_max_position_embeddings` inside or beside them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from longreach.checkpoints.spelling import BASES, DICTS, PARTIAL
from longreach.checkpoints.spelling import ORIGINAL as ORIGINAL  # for the checks, which take all of this vocabulary from here

LOCAL_BASES = ("rope_local_base_freq", "local_rope_theta", "swa_rope_theta")
FULL, SLIDING = "full_attention", "sliding_attention"
SPELLINGS = (*DICTS, *BASES, *LOCAL_BASES, *PARTIAL, ORIGINAL)
RENAMED = {"su": "longrope", "mrope": "default"}  # what older checkpoints call these rope types; multi-section ropes scale nothing
_TYPES = ("rope_type", "type")
SINGLE = ("rope_type", "factor", ORIGINAL, "partial_rotary_factor")  # settings that may have one value only; a base may be a default


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A value, and where in config.json it stands."""

    where: str
    value: Any


@dataclass
class Stated:
    """What config.json says about one rotary embedding: setting -> all claims, the one to believe first."""

    claims: dict[str, list[Statement]] = field(default_factory=dict)

    def add(self, name: str, where: str, value: Any) -> None:
        """Note a claim; null claims nothing."""
        if value is not None:
            self.claims.setdefault(name, []).append(Statement(where=where, value=value))

    def get(self, name: str, default: Any = None) -> Any:
        """The value to believe."""
        return self.claims[name][0].value if name in self.claims else default

    @property
    def rope_type(self) -> str:
        """The rope type under its present name; `default` where none is stated."""
        if "short_factor" in self.claims:  # the first Phi-3 called its longrope `su` or `yarn`
            return "longrope"
        stated = str(self.get("rope_type", "default"))
        return RENAMED.get(stated, stated)

    @property
    def parameters(self) -> dict[str, Any]:
        """Every stated value under its present name."""
        values = {name: claims[0].value for name, claims in self.claims.items()}
        return {**values, "rope_type": self.rope_type}

    @property
    def unclear(self) -> bool:
        """Whether nobody can tell what was meant: two values of a setting, or a factor without a rope type."""
        untyped = "rope_type" not in self.claims and "factor" in self.claims and self.rope_type == "default"
        return untyped or any(self.conflicts(name) for name in SINGLE)

    def conflicts(self, name: str) -> list[Statement]:
        """The claims on a setting where they differ, else nothing."""
        found = self.claims.get(name, [])
        return found if len({repr(_comparable(claim.value)) for claim in found}) > 1 else []


def read_stated(text: Mapping[str, Any], layer_types: Sequence[str | None], default_theta: float) -> dict[str | None, Stated]:
    """layer type -> what is stated of it; one entry None where config.json does not tell layer types apart.

    Args: layer_types: those that the family has rotary embeddings for. default_theta: the base that it takes where none is stated. Where
    two bases are stated, the other one is believed: programs write their default into configs that they do not understand.
    """
    dicts = {name: text[name] for name in DICTS if isinstance(text.get(name), dict)}
    nested = sorted({key for found in dicts.values() for key, value in found.items() if isinstance(value, dict)})
    keys: list[str | None] = [*nested] if nested else [key for key in (FULL, SLIDING) if key in layer_types] or [None]
    stated = {key: _read(text, dicts, key, nested=bool(nested)) for key in keys}
    for said in stated.values():
        if len(claims := said.conflicts("rope_theta")) > 1:
            said.claims["rope_theta"] = sorted(claims, key=lambda claim: _comparable(claim.value) == _comparable(default_theta))
    return stated


def _read(text: Mapping[str, Any], dicts: Mapping[str, Mapping[str, Any]], key: str | None, *, nested: bool) -> Stated:
    said = Stated()
    for name, found in dicts.items():
        if key == SLIDING and not nested:
            break  # one dict for all layers has always meant the full ones: sliding layers are not scaled
        values, where = (found.get(key or ""), f"{name}.{key}") if nested else (found, name)
        for inner, value in (values if isinstance(values, dict) else {}).items():
            said.add("rope_type" if inner in _TYPES else inner, f"{where}.{inner}", value)
    for name in LOCAL_BASES if key == SLIDING else BASES:
        said.add("rope_theta", name, text.get(name))
    for name in PARTIAL:
        said.add("partial_rotary_factor", name, text.get(name))
    if key != SLIDING:
        said.add(ORIGINAL, ORIGINAL, text.get(ORIGINAL))
    return said


def _comparable(value: Any) -> Any:
    """Numbers by value, also where they are written as text; rope types under their present name."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return RENAMED.get(value, value)
    if isinstance(value, dict):
        return {name: _comparable(inner) for name, inner in value.items()}
    return float(value) if isinstance(value, int | float) else repr(value)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a finite number; JSON's true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def same(one: Any, other: Any) -> bool:
    """Whether two values mean the same."""
    return bool(_comparable(one) == _comparable(other))

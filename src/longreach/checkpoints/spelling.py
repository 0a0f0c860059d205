"""How config.json spells out a rotary embedding, so that every program that reads it sees the same.

transformers 5 reads `rope_parameters`; transformers 4, and programs built on it, `rope_scaling` with `rope_theta` beside it. Where both are
there, transformers 5 takes `rope_scaling`, and finds the base and the rotated share of a head beside it, by names that hang on the family.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from longreach.checkpoints._safety import read_json
from longreach.core.errors import CheckpointError
from longreach.engine.rope_config import ORIGINAL as ORIGINAL
from longreach.engine.rope_config import SCALED_BY

CONFIG = "config.json"
DICTS = ("rope_parameters", "rope_scaling")
BASES = ("rope_theta", "rotary_emb_base", "rotary_base", "rope_base", "global_rope_theta")
PARTIAL = ("partial_rotary_factor", "rotary_pct", "rope_pct", "rotary_percentage", "rotary_emb_fraction")
_BESIDE = {"rope_theta": BASES, "partial_rotary_factor": PARTIAL}  # what stands beside `rope_scaling`, not in it: setting -> its names
_TRIAL = {"rope_theta": 54_321.0, "partial_rotary_factor": 0.4375}  # values that are no family's default


def spelled_out(parameters: Mapping[str, Any], text: Mapping[str, Any], family: type[PreTrainedConfig] | None = None) -> dict[str, Any]:
    """Entries of a config that state `parameters` for every reader; None: the entry has to go.

    Embeddings that differ by layer type have one spelling that all families share, `rope_parameters`, and get that alone. So do those of
    the few families of which transformers 5 would read something else beside `rope_scaling`.
    Args: parameters: as transformers 5 has them. text: the language model's part of config.json. family: its class; None: not known.
    """
    stated = {name: value for name, value in parameters.items() if name != "type"}
    alone: dict[str, Any] = {**dict.fromkeys(DICTS), "rope_parameters": stated}
    if any(isinstance(value, dict) for value in stated.values()):
        return alone
    if ORIGINAL in text and ORIGINAL in stated:  # where it stands beside the dicts (Phi-3), transformers prefers it
        alone[ORIGINAL] = stated[ORIGINAL]
    both = dict(alone)
    for setting, names in _BESIDE.items():
        if setting in stated:
            both |= {name: stated[setting] for name in names if name in (setting, *text) or _reads(family, text, name, setting)}
    if stated.get("rope_type", "default") != "default":
        both["rope_scaling"] = {**{name: value for name, value in stated.items() if name not in _BESIDE}, "type": stated["rope_type"]}
    return both if family is None or _read(family, {**text, **both}) == _read(family, {**text, **alone}) else alone


def beside(text: PreTrainedConfig, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a config holds, before `parameters` are spelled out in it, of the entries that then stand beside the dicts; None: nothing."""
    return {name: vars(text).get(name) for name in spelled_out(parameters, text.to_dict(), type(text)) if name not in DICTS}


def spell_out(folder: Path, config: PreTrainedConfig, *, always: bool = False) -> None:
    """Rewrite config.json so that every reader sees an exported method; transformers saves only what its newest version reads.

    Args: always: without an exported method, too.
    """
    raw = read_json(folder / CONFIG)
    text = text_of(raw, config)
    if not text.get("rope_parameters") or not (always or text.get(SCALED_BY)):
        return
    for name, value in spelled_out(text["rope_parameters"], text, type(config.get_text_config())).items():
        text.pop(name, None)
        if value is not None:
            text[name] = value
    (folder / CONFIG).write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n", encoding="utf-8")  # as transformers writes it


def check_spelling(folder: Path, config: PreTrainedConfig) -> None:
    """Raise CheckpointError where config.json says one thing to some readers and another to others."""
    text = text_of(read_json(folder / CONFIG), config)
    if not text.get("rope_parameters"):
        return
    for name, value in spelled_out(text["rope_parameters"], text, type(config.get_text_config())).items():
        if name != "rope_parameters" and text.get(name, value) != value:
            raise CheckpointError(f"{folder / CONFIG} contradicts itself: {name} is not what rope_parameters says; do not use it")


def text_of(raw: dict[str, Any], config: PreTrainedConfig) -> dict[str, Any]:
    """The part of config.json that its language model is built from."""
    text = config.get_text_config()
    for name, value in vars(config).items():
        if value is text and isinstance(inner := raw.get(name), dict):
            return inner
    return raw


def _reads(family: type[PreTrainedConfig] | None, text: Mapping[str, Any], name: str, setting: str) -> bool:
    """Whether the family takes a setting from an entry of that name, found by trying."""
    if family is None:
        return False
    others = {key: value for key, value in text.items() if key not in (*DICTS, *BASES, *PARTIAL)}
    found = _read(family, {**others, "rope_scaling": {"rope_type": "default"}, name: _TRIAL[setting]}) or {}
    return bool(found.get(setting) == _TRIAL[setting])


def _read(family: type[PreTrainedConfig], text: Mapping[str, Any]) -> dict[str, Any] | None:
    """The `rope_parameters` that transformers makes of a config, without `rope_type` under its older name; None: it refuses the config."""
    try:
        found = getattr(family.from_dict(copy.deepcopy(dict(text))), "rope_parameters", None) or {}
    except (StrictDataclassError, ValueError, KeyError):
        return None
    return {name: value for name, value in found.items() if name != "type"}

"""The contract of checks: what they are told of a checkpoint, and what they say of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from longreach.checkpoints.record import Record
from longreach.diagnosis.stated import FULL, Stated, read_stated
from longreach.diagnosis.used import Used, UsedRope

CONFIG, TOKENIZER, GENERATION = "config.json", "tokenizer_config.json", "generation_config.json"


class Severity(IntEnum):
    """How bad a finding is. ERROR: the model runs with other positions than it was trained with, or not at all."""

    NOTE = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One change of a JSON file: `value` at `path`, or nothing there any more where `value` is None."""

    file: str
    path: tuple[str, ...]
    value: Any


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found. Args: what: the fact. remedy: what to do about it, in one line. edits: what `--fix` changes; empty: it cannot.

    check: name of the check, filled in by whoever runs it.
    """

    severity: Severity
    what: str
    remedy: str
    edits: tuple[Edit, ...] = ()
    check: str = ""


@dataclass(kw_only=True)
class Patient:
    """A checkpoint under examination.

    Args: checkpoint: its folder, or the GGUF file. raw: config.json as it is written, or what a GGUF file says instead. used: what the
    installed transformers makes of it. tokenizer, generation: those files as they are written, empty where there are none. record:
    longreach.json.
    """

    checkpoint: Path
    name: str
    raw: dict[str, Any]
    used: Used
    tokenizer: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    record: Record | None = None

    @property
    def prefix(self) -> tuple[str, ...]:
        """Where in config.json the language model's own values stand."""
        return ("text_config",) if isinstance(self.raw.get("text_config"), dict) else ()

    @property
    def text(self) -> dict[str, Any]:
        """The language model's part of config.json."""
        return {**self.raw, **self.raw["text_config"]} if self.prefix else self.raw

    @cached_property
    def stated(self) -> dict[str | None, Stated]:
        """layer type (None: all layers) -> what config.json says about its rotary embedding."""
        return read_stated(self.text, self.used.layer_types, self.used.default_theta)

    @property
    def pairs(self) -> list[tuple[str | None, Stated, UsedRope]]:
        """What is stated beside what is used, for each layer type that has both."""
        ropes = self.used.ropes
        if None in ropes and None not in self.stated:  # told apart by a config whose family has one rotary embedding
            key = FULL if FULL in self.stated else next(iter(self.stated))
            return [(key, self.stated[key], ropes[None])]
        return [(key, said, ropes[key]) for key, said in self.stated.items() if key in ropes]

    @property
    def window(self) -> int | None:
        """Tokens that the checkpoint claims to be made for."""
        if self.used.window is not None:
            return self.used.window
        found = self.text.get("max_position_embeddings")
        return found if isinstance(found, int) else None

    def edit(self, changes: Mapping[str, Any]) -> tuple[Edit, ...]:
        """Edits of the language model's part of config.json; None takes a value out."""
        return tuple(Edit(file=CONFIG, path=(*self.prefix, name), value=value) for name, value in changes.items())


def of(layer_type: str | None) -> str:
    """` of the full_attention layers`, or nothing where there is one rotary embedding."""
    return f" of the {layer_type} layers" if layer_type else ""

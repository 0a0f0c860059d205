"""Makes any language model work at any length. Public names are imported on first use, so that `import longreach` is fast."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from longreach.checkpoints.checkpoint import load, save
    from longreach.conversation.conversation import Conversation
    from longreach.conversation.local import LocalModel
    from longreach.core.errors import CheckpointError, InputError, LongreachError, SpecError, UnsupportedError
    from longreach.core.spec import parse
    from longreach.decoding.writing import generate
    from longreach.diagnosis.doctor import doctor
    from longreach.endpoint.client import Endpoint
    from longreach.endpoint.recording import Recording
    from longreach.engine.apply import apply
    from longreach.engine.attach import attach
    from longreach.engine.snapshots import restore, snapshot
    from longreach.engine.weights import equip
    from longreach.evaluation.evaluate import evaluate, evaluate_endpoint
    from longreach.evaluation.measure import measure
    from longreach.library import Library
    from longreach.planning.plan import plan_memory
    from longreach.stretching.fit import fit
    from longreach.stretching.stretch import stretch
    from longreach.workflows.run import composition, reading
    from longreach.workflows.spans import Document

_HOMES = {
    "CheckpointError": "longreach.core.errors",
    "Conversation": "longreach.conversation.conversation",
    "Document": "longreach.workflows.spans",
    "Endpoint": "longreach.endpoint.client",
    "InputError": "longreach.core.errors",
    "Library": "longreach.library",
    "LocalModel": "longreach.conversation.local",
    "LongreachError": "longreach.core.errors",
    "Recording": "longreach.endpoint.recording",
    "SpecError": "longreach.core.errors",
    "UnsupportedError": "longreach.core.errors",
    "parse": "longreach.core.spec",
    "apply": "longreach.engine.apply",
    "attach": "longreach.engine.attach",
    "composition": "longreach.workflows.run",
    "doctor": "longreach.diagnosis.doctor",
    "equip": "longreach.engine.weights",
    "evaluate": "longreach.evaluation.evaluate",
    "evaluate_endpoint": "longreach.evaluation.evaluate",
    "fit": "longreach.stretching.fit",
    "generate": "longreach.decoding.writing",
    "load": "longreach.checkpoints.checkpoint",
    "measure": "longreach.evaluation.measure",
    "plan_memory": "longreach.planning.plan",
    "reading": "longreach.workflows.run",
    "restore": "longreach.engine.snapshots",
    "save": "longreach.checkpoints.checkpoint",
    "snapshot": "longreach.engine.snapshots",
    "stretch": "longreach.stretching.stretch",
}

__all__ = [
    "CheckpointError",
    "Conversation",
    "Document",
    "Endpoint",
    "InputError",
    "Library",
    "LocalModel",
    "LongreachError",
    "Recording",
    "SpecError",
    "UnsupportedError",
    "apply",
    "attach",
    "composition",
    "doctor",
    "equip",
    "evaluate",
    "evaluate_endpoint",
    "fit",
    "generate",
    "load",
    "measure",
    "parse",
    "plan_memory",
    "reading",
    "restore",
    "save",
    "snapshot",
    "stretch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'longreach' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(["__version__", *__all__])

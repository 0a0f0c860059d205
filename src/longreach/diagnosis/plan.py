"""Makes the memory plan of a checkpoint, and looks at the model itself where its weights fit into memory."""

from typing import Any

import torch
from transformers import PreTrainedModel

from longreach.checkpoints import _safety
from longreach.checkpoints.checkpoint import load
from longreach.checkpoints.gguf import find_weights
from longreach.checkpoints.placement import find_dtype
from longreach.core.errors import CheckpointError
from longreach.diagnosis.base import Finding, Patient, Severity, of
from longreach.diagnosis.memory import SHARE, Layer, MemoryPlan, computed, weigh
from longreach.engine.fingerprint import fingerprint

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack")
_TOLERANCE = 1e-3  # the frequencies of a loaded model may have been rounded to its dtype


def make_plan(
    patient: Patient,
    *,
    device: torch.device,
    dtype: str | None = None,
    batch_size: int = 1,
    load_weights: bool = True,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> tuple[MemoryPlan, list[Finding], str | None]:
    """The plan, what was found wrong with the weights or with the frequencies of the loaded model, and the fingerprint of its weights.

    Args: load_weights: run the model itself where it fits; otherwise its shape alone, which takes no memory.
    """
    findings: list[Finding] = []
    weights = _weights(patient, findings, allow_pickle=allow_pickle)
    config, free = patient.used.config, _safety.available_bytes(device)
    quantized = getattr(config, "quantization_config", None) is not None
    target = find_dtype(dtype, weights or _safety.Weights(pickled=False, sizes=()), device, quantized=quantized)
    target = None if quantized else target
    size = weights.bytes_in(target) if weights is not None else None
    kind = target or (weights.stored if weights is not None else None) or getattr(config, "dtype", None) or torch.float32
    layers: tuple[Layer, ...] = ()
    measured, weights_are = False, None
    if patient.used.failure is None and config is not None:
        if load_weights and size is not None and (free is None or size < SHARE * free):
            try:
                model = load(
                    patient.checkpoint, dtype=kind if target is not None else "auto", device=device, allow_pickle=allow_pickle,
                    trust_remote_code=trust_remote_code, apply_method=False, decoder_only=True,
                ).model  # fmt: skip
            except CheckpointError as error:
                findings.append(_about_weights(Severity.ERROR, str(error)) if patient.used.causal else _about_kind(str(error)))
            else:
                findings += loaded_frequencies(patient, model)
                layers, measured, weights_are = _weigh(model), True, fingerprint(model)
        if not measured:
            shape: Any = patient.used.model
            layers = _weigh(shape.to(kind)) if patient.used.causal else ()
    plan = MemoryPlan(
        dtype=str(kind).removeprefix("torch."),
        device=str(device),
        batch_size=batch_size,
        weights=size,
        free=free,
        layers=layers,
        measured=measured and bool(layers),
        computed_per_1k=computed(config, kind) if config is not None else None,
    )
    return plan, findings, weights_are


def loaded_frequencies(patient: Patient, model: PreTrainedModel) -> list[Finding]:
    """Rotary buffers of a loaded model that differ from those of the module that transformers builds from the config."""
    found = []
    for name, buffer in model.named_buffers():
        inner = name.rpartition(".")[2]
        layer_type = inner.removesuffix("inv_freq").rstrip("_") or None
        rope = patient.used.ropes.get(layer_type) if inner.endswith("inv_freq") and "original" not in inner else None
        if rope is None or rope.inv_freq is None or len(rope.inv_freq) != len(buffer):
            continue
        if not torch.allclose(buffer.double().cpu(), rope.inv_freq, rtol=_TOLERANCE, atol=0):
            found.append(
                Finding(
                    check="loaded",
                    severity=Severity.ERROR,
                    what=f"once loaded, {name}{of(layer_type)} differs from what its config means",
                    remedy="leave programs away that patch transformers, or install a transformers that loads this family rightly",
                )
            )
    return found


def _weights(patient: Patient, findings: list[Finding], *, allow_pickle: bool) -> _safety.Weights | None:
    here = patient.checkpoint
    if here.is_dir() and not any(file for pattern in _WEIGHTS for file in here.glob(pattern)):
        findings.append(_about_weights(Severity.NOTE, "no weights are here: what they take is not known"))
        return None
    try:
        return find_weights(here, patient.name, allow_pickle=allow_pickle)
    except CheckpointError as error:
        findings.append(_about_weights(Severity.ERROR, str(error)))
        return None


def _about_weights(severity: Severity, what: str) -> Finding:
    return Finding(check="weights", severity=severity, what=what, remedy="fetch the whole checkpoint, or convert it to safetensors")


def _about_kind(what: str) -> Finding:
    remedy = "measure, stretch and tune need a causal language model; its weights were not loaded"
    return Finding(check="weights", severity=Severity.NOTE, what=what, remedy=remedy)


def _weigh(model: PreTrainedModel) -> tuple[Layer, ...]:
    """The layers of the cache; none where the model has no cache that can be weighed."""
    try:
        layers = weigh(model.eval())
    except Exception:  # noqa: BLE001 - models with a cache of their own fail in ways of their own; the plan then says that it is not known
        return ()
    return layers if any(layer.bytes_at(1) for layer in layers) else ()

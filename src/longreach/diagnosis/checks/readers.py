"""Whether other programs that read config.json would see the same."""

import math
from collections.abc import Iterator

from longreach.diagnosis.base import Finding, Patient, Severity, of
from longreach.diagnosis.checks.scaling_kept import differences
from longreach.diagnosis.expected import attention_factor
from longreach.diagnosis.readers import transformers_4, vllm_window
from longreach.diagnosis.spelling import respelling, two_bases
from longreach.diagnosis.stated import Stated, same


def check(patient: Patient) -> Iterator[Finding]:
    """Values that transformers 4, vLLM or llama.cpp read differently."""
    if patient.used.failure is not None or not patient.pairs:
        return
    old, (_, said, used) = transformers_4(patient), patient.pairs[0]
    base = used.parameters.get("rope_theta")
    kept = same(said.get("rope_theta", base), base) and not differences(said, used) and not two_bases(patient, said)
    if kept and old is not None and not (same(old.base, base) and old.rope_type == said.rope_type):
        yield Finding(
            severity=Severity.NOTE,
            what=f"programs older than transformers 5 do not know rope_parameters: they take {old}",
            remedy="serve it with programs that know rope_parameters, or write the older spelling beside it",
            edits=respelling(patient),
        )
    window = vllm_window(patient)
    if window is not None and patient.window is not None and window != patient.window:
        yield Finding(
            severity=Severity.NOTE,
            what=f"vLLM serves up to {window} tokens where it is not told, and max_position_embeddings is {patient.window}",
            remedy="tell it how far the model was stretched, by --max-model-len",
        )
    for layer_type, each, _ in patient.pairs:
        if each.rope_type == "yarn":
            yield from _attention_factor(patient, layer_type, each)
        elif each.rope_type == "dynamic":
            yield Finding(
                severity=Severity.NOTE,
                what=f"dynamic scaling{of(layer_type)} has no key in GGUF: llama.cpp runs the model unscaled",
                remedy="give llama.cpp --rope-scaling, or scale by yarn",
            )


def _attention_factor(patient: Patient, layer_type: str | None, said: Stated) -> Iterator[Finding]:
    """vLLM and llama.cpp compute YaRN's attention factor themselves; llama.cpp multiplies a stated one on top."""
    stated, factor = said.get("attention_factor"), said.get("factor")
    if not isinstance(factor, int | float):
        return
    usual = attention_factor({}, factor)
    if not isinstance(stated, int | float):
        latent = hasattr(patient.used.text, "kv_lora_rank")  # the families that mscale was made for: all their readers know it
        if not latent and not math.isclose(by_mscale := attention_factor(said.parameters, factor), usual):
            yield Finding(
                severity=Severity.NOTE,
                what=f"mscale and mscale_all_dim{of(layer_type)} make {by_mscale:.4g} of yarn's factor on cos and sin; readers that do not "
                f"know them in this family take {usual:.4g}",
                remedy="compare the server's answers with those of transformers",
            )
        return
    if math.isclose(stated, usual, rel_tol=1e-3):
        yield Finding(
            severity=Severity.NOTE,
            what=f"attention_factor={stated:.4g}{of(layer_type)} is yarn's own value; in GGUF it comes on top of llama.cpp's own",
            remedy="take attention_factor out before you convert: every reader computes the same value",
        )
    elif not math.isclose(stated, usual * said.get("attn_factor", 1), rel_tol=1e-3):  # vLLM's name for the share
        yield Finding(
            severity=Severity.WARNING,
            what=f"attention_factor={stated:.4g}{of(layer_type)} differs from yarn's own {usual:.4g}, which vLLM takes all the same",
            remedy=f"serve with attn_factor={stated / usual:.6g} in vLLM's --hf-overrides for rope_parameters",
        )

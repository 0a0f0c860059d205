"""Whether the rotary modules that transformers builds have the frequencies that config.json means."""

from collections.abc import Iterator

from longreach.diagnosis.base import Finding, Patient, Severity, of
from longreach.diagnosis.checks.scaling_kept import differences
from longreach.diagnosis.expected import frequencies
from longreach.diagnosis.stated import same

_TOLERANCE = 1e-4


def check(patient: Patient) -> Iterator[Finding]:
    """Frequencies or a factor on cos and sin that differ although every value was kept."""
    for layer_type, said, used in patient.pairs:
        kept = same(said.get("rope_theta", used.parameters.get("rope_theta")), used.parameters.get("rope_theta"))
        if used.inv_freq is None or not kept or differences(said, used) or said.unclear:
            continue
        meant = {**used.parameters, **{name: value for name, value in said.parameters.items() if value is not None}}
        dim = 2 * len(used.inv_freq)
        expected = frequencies(meant, dim, patient.window)
        if expected is None or not dim or not expected[0].isfinite().all():
            continue
        apart = float(((used.inv_freq - expected[0]) / expected[0]).abs().max())
        if not apart < _TOLERANCE:
            yield Finding(
                severity=Severity.ERROR,
                what=f"the frequencies{of(layer_type)} differ by up to {apart:.2g} of their value from what config.json means",
                remedy="leave settings away that this family ignores (truncate), or install a transformers that reads them",
            )
        if abs(used.attention_scaling - expected[1]) > _TOLERANCE:
            yield Finding(
                severity=Severity.ERROR,
                what=f"cos and sin{of(layer_type)} are scaled by {used.attention_scaling:.4g}, and config.json means {expected[1]:.4g}",
                remedy="state attention_factor in rope_parameters",
            )

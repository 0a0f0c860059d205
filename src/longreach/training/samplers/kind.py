"""Declares the kind `sampler`."""

from longreach.core.kinds import Kind

KIND = Kind(
    name="sampler",
    package="longreach.training.samplers",
    acts_on="training",
    contract="longreach.training.samplers.base:PositionSampler",
    suites=("longreach.testing.conformance.samplers",),
)

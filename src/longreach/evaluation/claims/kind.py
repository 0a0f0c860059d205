"""Declares the kind `metric`."""

from longreach.core.kinds import Kind

KIND = Kind(
    name="metric",
    package="longreach.evaluation.claims",
    acts_on="measurement",
    internal=True,
)

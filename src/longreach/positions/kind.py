"""Declares the kind `positions`."""

from longreach.core.kinds import Kind

KIND = Kind(
    name="positions",
    package="longreach.positions",
    acts_on="model",
    contract="longreach.positions.base:PositionsMethod",
    suites=(
        "longreach.testing.conformance.positions",
        "longreach.testing.conformance.tables",
        "longreach.testing.conformance.engine",
        "longreach.testing.conformance.caches",
    ),
)

"""Declares the kind `attention`."""

from longreach.core.kinds import Kind

KIND = Kind(
    name="attention",
    package="longreach.attention",
    acts_on="model",
    contract="longreach.attention.base:AttentionPolicy",
    suites=(
        "longreach.testing.conformance.engine",
        "longreach.testing.conformance.biased",
        "longreach.testing.conformance.waiting",
        "longreach.testing.conformance.skipping",
        "longreach.testing.conformance.caches",
        "longreach.testing.conformance.packed",
        "longreach.testing.conformance.sets",
        "longreach.testing.conformance.chunks",
        "longreach.testing.conformance.cross",
    ),
)

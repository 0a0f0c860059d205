"""Declares the kind `cache`."""

from longreach.core.kinds import Kind

KIND = Kind(
    name="cache",
    package="longreach.cache",
    acts_on="model",
    contract="longreach.cache.base:CachePolicy",
    suites=("longreach.testing.conformance.engine", "longreach.testing.conformance.caches"),
)

"""Declares the kind `reading`."""

from longreach.core.kinds import Kind

KIND = Kind(
    name="reading",
    package="longreach.workflows.reading",
    acts_on="endpoint",
    called="workflow",
    contract="longreach.workflows.base:ReadingWorkflow",
    suites=("longreach.testing.conformance.workflows",),
)

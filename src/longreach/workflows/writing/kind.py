"""Declares the kind `writing`."""

from longreach.core.kinds import Kind

KIND = Kind(
    name="writing",
    package="longreach.workflows.writing",
    acts_on="endpoint",
    called="workflow",
    contract="longreach.workflows.base:WritingWorkflow",
    suites=("longreach.testing.conformance.writing",),
)

"""Declares the kind `task`."""

from longreach.core.kinds import Kind

KIND = Kind(
    name="task",
    package="longreach.evaluation.tasks",
    acts_on="measurement",
    contract="longreach.evaluation.tasks.base:Task",
    suites=("longreach.testing.conformance.text_tasks",),
)

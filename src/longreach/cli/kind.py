"""Declares the kind `command`."""

from longreach.core.kinds import Kind

KIND = Kind(
    name="command",
    package="longreach.cli",
    acts_on="command",
)

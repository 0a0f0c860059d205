"""Declares the kind `overflow`."""

from longreach.core.kinds import Kind

KIND = Kind(
    name="overflow",
    package="longreach.conversation.overflow",
    acts_on="conversation",
    contract="longreach.conversation.overflow.base:OverflowPolicy",
    internal=True,
)
"""Internal: policies are no published methods, and some are called as the cache policy that they read under."""

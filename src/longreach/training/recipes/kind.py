"""Declares the kind `recipe`."""

from longreach.core.kinds import Kind

KIND = Kind(
    name="recipe",
    package="longreach.training.recipes",
    acts_on="training",
)

"""Which text and which positions a training sequence shows, so that short sequences teach long positions. One file a method."""

"""Which releases of transformers longreach is tested with."""

import warnings
from functools import cache

import transformers

TESTED = ("5.20", "5.24")


@cache
def check_version() -> None:
    """Warn, once, on a release of transformers that is newer than those tested; older ones pip does not install."""
    minor = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    if minor > tuple(int(part) for part in TESTED[1].split(".")):
        message = f"transformers {transformers.__version__} is newer than what longreach is tested with ({' to '.join(TESTED)})"
        warnings.warn(f"{message}; what does not work is refused, and an older transformers works", UserWarning, stacklevel=3)

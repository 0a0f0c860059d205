"""Prints text as it is produced."""

import io
import sys
from collections.abc import Iterable


def print_pieces(pieces: Iterable[str]) -> None:
    """Print each piece as it comes, as UTF-8 whatever the locale says; the last line is ended also when Ctrl-C stops it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:
        sys.stdout.write("\n")
        sys.stdout.flush()

"""The running Python's standard library as text: real, long, and on every machine.

Modules are divided by a hash of their top-level name. `TRAIN` modules may be trained on; `HELD_OUT` modules and the language
reference that `pydoc` ships (`pydoc_data.topics`) never are, so that measuring on them is fair for models trained by our recipes.
"""

import importlib
import os
import sysconfig
import zlib
from pathlib import Path
from typing import Literal

Split = Literal["train", "held-out"]

# Tests and character tables are long lists of numbers and escapes, and many distributions leave tests out.
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "__pycache__", "idle_test", "pydoc_data", "ensurepip", "encodings"}
_HELD_OUT_SHARE = 5  # one top-level module in five


def stdlib_files(split: Split) -> list[Path]:
    """The standard library's source files of one split, in a fixed order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = []
    for folder, inside, names in os.walk(root):
        inside[:] = set(inside) - _SKIPPED_FOLDERS  # what is installed beside the library can be far larger
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(path for path in files if _held_out(path.relative_to(root).parts[0]) == (split == "held-out"))


def stdlib_text(split: Split) -> str:
    """The text of one split: for `held-out`, the language reference first (prose), then source code."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in stdlib_files(split)]
    if split == "held-out":
        texts.insert(0, _language_reference())
    return "\n\n".join(texts)


def _language_reference() -> str:
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    return "\n\n".join(topics[name] for name in sorted(topics))


def _held_out(top_level: str) -> bool:
    return zlib.crc32(top_level.removesuffix(".py").encode()) % _HELD_OUT_SHARE == 0

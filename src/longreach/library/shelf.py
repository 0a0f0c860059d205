"""The folder of a library: for each document a safetensors file with what was read, its tokens, and a manifest that says what that is.

No file lists the others, so that processes that add and remove documents at the same time cannot spoil one another's work. A document is
there from the moment when its manifest is, which comes last.
"""

import difflib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from stat import S_ISREG
from typing import Any, get_type_hints

import longreach
from longreach.core.errors import InputError
from longreach.core.files import write_text

FORMAT = 1
MANIFEST, CACHE, TOKENS = ".json", ".safetensors", ".tokens"
_ID = re.compile(r"[0-9a-f]{16}")
_ADDING = ".adding-"
_BUSY = 600  # seconds for which what another process writes may stand still


def default_folder() -> Path:
    """LONGREACH_LIBRARY in the environment, else ~/.cache/longreach/library."""
    return Path(os.environ.get("LONGREACH_LIBRARY") or "~/.cache/longreach/library").expanduser()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a library knows of a document.

    Args: model: folder, file or id that the model was loaded from. options: other arguments of `longreach.load`. weights, tokenizer:
    fingerprints of the model as it read, and of its tokenizer. method: spec of what the model was under. chat: the document stands in a
    user's message of the chat template. tokens: read, with the template's opening. ids, text: SHA-256 of the tokens, and of the text.
    length: of a whole text, for which frequencies that hang on it were chosen. reading, writing: seconds that it took. bytes: of the
    cache's file. added: when, UTC. longreach: the release.
    """

    name: str
    model: str
    options: dict[str, Any]
    weights: str
    tokenizer: str
    method: str
    chat: bool
    tokens: int
    ids: str
    text: str
    length: int
    reading: float
    writing: float
    bytes: int
    added: str
    longreach: str

    @property
    def id(self) -> str:
        """16 hexadecimal digits of the model, the method and the tokens: what is the same in all of them is the same document."""
        same = [self.weights, self.tokenizer, self.method, self.chat, self.ids]
        return hashlib.sha256(json.dumps(same).encode()).hexdigest()[:16]

    @property
    def under(self) -> str:
        """The method in words."""
        return self.method or "no method"


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A document in a library.

    Args: id: what its files are called. manifest: None where it cannot be read. broken: what is wrong with it; "" for nothing. foreign: why
    this longreach does not read it, although it may be whole. bytes: on disk. used: when it was last asked about, or added (seconds since
    the epoch).
    """

    folder: Path
    id: str
    manifest: Manifest | None
    broken: str = ""
    foreign: str = ""
    bytes: int = 0
    used: float = 0.0

    @property
    def name(self) -> str:
        """As its manifest calls it; else its id."""
        return self.id if self.manifest is None else self.manifest.name

    @property
    def path(self) -> Path:
        """The file with what was read."""
        return self.folder / f"{self.id}{CACHE}"

    @property
    def why_not(self) -> str:
        """Why it is of no use; "" where it is."""
        return self.broken or self.foreign

    def ids(self) -> list[int]:
        """The tokens that were read. Raises: InputError where they are not those that the manifest is of."""
        manifest = self.readable()
        try:
            text = (self.folder / f"{self.id}{TOKENS}").read_bytes()
        except OSError:
            text = b""
        if hashlib.sha256(text).hexdigest() != manifest.ids:
            raise InputError(f"{self.name} cannot be used: its tokens are damaged; remove it, and add it again")
        ids: list[int] = json.loads(text)
        return ids

    def readable(self) -> Manifest:
        """The manifest of one that can be used. Raises: InputError."""
        if self.manifest is None or self.why_not:
            raise InputError(f"{self.name} cannot be used: {self.why_not}; add it again")
        return self.manifest

    def touch(self) -> None:
        """Note that it is used now; where nothing may be written, it is used all the same."""
        with suppress(OSError):
            os.utime(self.folder / f"{self.id}{MANIFEST}")

    def remove(self) -> None:
        """Remove its files: the manifest first, without which it is not there. Raises: InputError where that is not allowed."""
        try:
            for suffix in (MANIFEST, CACHE, TOKENS):
                (self.folder / f"{self.id}{suffix}").unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot remove {self.name} from {self.folder}: {error.strerror}") from None


def volumes(folder: Path) -> list[Volume]:
    """All documents that have a manifest, by name. A folder that is not there has none."""
    found = [_volume(folder, path) for path in _files(folder, MANIFEST)]
    return sorted((each for each in found if each is not None), key=lambda volume: (volume.name, volume.id))


def find(folder: Path, name: str) -> Volume:
    """The document of a name, or of an id. Raises: InputError where there is none, or more than one."""
    known = volumes(folder)
    found = [each for each in known if each.name == name] or [each for each in known if each.id == name]
    found = [each for each in found if not each.broken] or found
    if len(found) > 1:
        ids = ", ".join(f"{each.id} ({'broken' if each.manifest is None else each.manifest.under})" for each in found)
        raise InputError(f"{len(found)} documents are called {name}; say which by its id: {ids}")
    if not found:
        close = difflib.get_close_matches(name, [each.name for each in known], n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "longreach library list shows what there is"
        raise InputError(f"{folder} has no document {name}; {hint}")
    return found[0]


@contextmanager
def adding(folder: Path) -> Iterator[Path]:
    """A folder inside the library to write to, which is gone afterwards, with all that was not put in its place (see `put`).

    Raises: InputError where nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(prefix=_ADDING, dir=folder)
    except OSError as error:
        raise InputError(f"cannot write to the library {folder}: {error.strerror}") from None
    with place:
        yield Path(place.name)


def put(folder: Path, written: Path, ids: Sequence[int], manifest: Manifest) -> Volume:
    """Move a file that was written inside `adding` into its place with its tokens, then the manifest.

    Raises: InputError where that cannot be written.
    """
    try:
        data = {"format": FORMAT, **asdict(manifest)}
        tokens, beside = written.with_suffix(TOKENS), written.with_suffix(MANIFEST)
        tokens.write_text(_written(ids), encoding="ascii")
        write_text(beside, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
        tokens.replace(folder / f"{manifest.id}{TOKENS}")
        written.replace(folder / f"{manifest.id}{CACHE}")
        beside.replace(place := folder / f"{manifest.id}{MANIFEST}")
    except OSError as error:
        raise InputError(f"cannot write to the library {folder}: {error.strerror}") from None
    found = _volume(folder, place)
    if found is None:
        raise InputError(f"{manifest.name} was removed from {folder} while it was added; add it again")
    return found


def leftovers(folder: Path) -> list[tuple[Path, int]]:
    """What was begun and never finished, and nobody writes any more: (path, bytes)."""
    left = [path for suffix in (CACHE, TOKENS) for path in _files(folder, suffix) if not path.with_suffix(MANIFEST).exists()]
    left += [path for path in folder.glob(f"{_ADDING}*") if path.is_dir()] if folder.is_dir() else []
    found: list[tuple[Path, int]] = []
    for path in left:
        stats = [stat for each in (path, *path.rglob("*")) if (stat := _stat(each)) is not None]
        if stats and time.time() - max(each.st_mtime for each in stats) > _BUSY:
            found.append((path, sum(each.st_size for each in stats if S_ISREG(each.st_mode))))
    return found


def discard(path: Path) -> None:
    """Remove a leftover. Raises: InputError where that is not allowed."""
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot remove {path}: {error.strerror}") from None


def over(kept: Sequence[Volume], most: int) -> list[Volume]:
    """The volumes without which the others take at most so many bytes: those that were not used for the longest time."""
    total, gone = sum(each.bytes for each in kept), []
    for volume in sorted(kept, key=lambda each: each.used):
        if total <= most:
            break
        total -= volume.bytes
        gone.append(volume)
    return gone


def ids_digest(ids: Sequence[int]) -> str:
    """SHA-256 of tokens, as manifests have it."""
    return hashlib.sha256(_written(ids).encode()).hexdigest()


def _written(ids: Sequence[int]) -> str:
    return json.dumps(list(ids))


def _files(folder: Path, suffix: str) -> list[Path]:
    return [path for path in folder.glob(f"*{suffix}") if _ID.fullmatch(path.stem)] if folder.is_dir() else []


def _volume(folder: Path, path: Path) -> Volume | None:
    """None where it was removed meanwhile."""
    try:
        stat, text = path.stat(), path.read_bytes()
    except FileNotFoundError:
        return None
    manifest, broken, foreign = _read(text, path.stem)
    cache, tokens = _stat(path.with_suffix(CACHE)), _stat(path.with_suffix(TOKENS))
    size = 0 if cache is None else cache.st_size
    if cache is None:
        broken = "its file is missing"
    elif tokens is None:
        broken = "its tokens are missing"
    elif manifest is not None and not broken and size != manifest.bytes:
        broken = f"its file has {size} bytes of {manifest.bytes}"
    total = stat.st_size + size + (0 if tokens is None else tokens.st_size)
    return Volume(folder=folder, id=path.stem, manifest=manifest, broken=broken, foreign=foreign, bytes=total, used=stat.st_mtime)


def _stat(path: Path) -> os.stat_result | None:
    """None for what is not there, or no longer."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _read(text: bytes, stem: str) -> tuple[Manifest | None, str, str]:
    """A manifest from its file, what is broken about it, and why it is foreign."""
    try:
        data = json.loads(text)
        given = data.pop("format", None)
    except (ValueError, AttributeError, TypeError):
        return None, "its manifest is damaged", ""
    if given != FORMAT:
        release = data.get("longreach", "unknown")
        return None, "", f"its manifest has format {given!r} (longreach {release}) and this longreach reads {FORMAT}"
    hints = get_type_hints(Manifest)
    kinds = {field.name: hints[field.name] for field in fields(Manifest)}
    if data.keys() != kinds.keys() or any(not isinstance(data[name], getattr(kind, "__origin__", kind)) for name, kind in kinds.items()):
        return None, "its manifest is damaged", ""
    manifest = Manifest(**data)
    if manifest.id != stem:
        return manifest, "its manifest is that of another document", ""
    if manifest.longreach != longreach.__version__:
        return manifest, "", f"longreach {manifest.longreach} wrote it, and this is {longreach.__version__}"
    return manifest, "", ""

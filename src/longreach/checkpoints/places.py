"""Where checkpoints are and where they may be written, told before any library is loaded."""

from importlib.resources import files
from pathlib import Path

from longreach.checkpoints._folder import heal
from longreach.checkpoints.gguf_header import check_gguf
from longreach.checkpoints.hub import is_id, name_and_revision
from longreach.core.errors import CheckpointError, InputError

MARKER = "longreach.json"  # lies in every checkpoint that longreach wrote


def local_checkpoint(name: str, revision: str | None = None) -> Path | None:
    """The folder or GGUF file of a checkpoint that is on this machine, or None for a model of the hub.

    Args: name: a folder, a GGUF file, a hub id, the link of a hub page, or `nano`.
    Raises: CheckpointError where there is none, and for a file that cannot be loaded; InputError for a revision of what is not on the hub.
    """
    on_hub, chosen = name_and_revision(name, revision)
    path = Path(name).expanduser()
    if on_hub == name and chosen is not None and (name == "nano" or path.exists()):
        raise InputError(f"revision {revision} has no effect on {name}, which is not on the hub")
    if name == "nano":
        bundled = Path(str(files("longreach.checkpoints") / "nano"))
        if not (bundled / "config.json").is_file():
            raise CheckpointError("this installation of longreach lacks the bundled model nano; install longreach again")
        return bundled
    heal(path.resolve())
    if path.is_dir():
        return path
    if path.exists():
        check_gguf(path, name)
        return path
    if path.suffix == ".gguf":
        raise CheckpointError(f"no such file or folder: {name}")
    if not is_id(on_hub):
        raise CheckpointError(f"no such folder: {name}")
    return None


def checkpoint_name(name: str, revision: str | None = None) -> str:
    """What rows and reports call a checkpoint: the name of its folder or file, or the hub id, with its revision where one is given."""
    path = Path(name)
    if path.is_file():
        return path.name  # of a link, too: the hub's cache names files by what is in them
    if path.is_dir():
        return path.resolve().name
    name, revision = name_and_revision(name, revision)
    return f"{name}@{revision}" if revision else name


def place_of(folder: str | Path) -> Path:
    """Where a checkpoint to be saved will stand, in full.

    Raises: InputError where something stands there that longreach did not write.
    """
    place = Path(folder).expanduser().resolve()
    if place.exists() and not (place.is_dir() and ((place / MARKER).is_file() or not any(place.iterdir()))):
        raise InputError(f"{folder} exists and is not a longreach checkpoint; choose another folder")
    return place

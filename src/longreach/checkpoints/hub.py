"""Names on the Hugging Face hub, and what is fetched from there."""

import re
from collections.abc import Iterable
from pathlib import Path

from longreach.checkpoints._errors import first_line
from longreach.core.errors import CheckpointError

_LINK = re.compile(
    r"https?://(www\.)?(huggingface\.co|hf\.co)/(?P<id>[\w.-]+/[\w.-]+?)(/(tree|blob)/(?P<revision>[^/?#]+)[^?#]*)?/?([?#].*)?"
)
_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def name_and_revision(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """The hub id and the revision in the link of a hub page; any other name as it is. Args: revision: wins over that of the link."""
    link = _LINK.fullmatch(name)
    return (name, revision) if link is None else (link["id"], revision or link["revision"])


def is_id(name: str) -> bool:
    """Whether the hub could have a model of that name."""
    return _ID.fullmatch(name) is not None and "--" not in name and ".." not in name


def download(name: str, revision: str | None, patterns: Iterable[str]) -> Path:
    """The folder with the files of a hub repository that the patterns name, fetched where they are not here yet.

    Raises: CheckpointError where `name` cannot be a hub id, and where the hub has no such thing or does not answer.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # its own base, of whichever client it uses

    if not is_id(name):
        raise CheckpointError(f"no such folder: {name}")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (HTTPError, OSError, ValueError) as error:
        raise CheckpointError(f"{name} is not a folder here and could not be fetched from the hub: {first_line(error)}") from None

"""Documents of a library, which the model read before it was served: a chat that opens with one goes on from there."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

from transformers import PreTrainedTokenizerBase

from longreach.core.errors import InputError
from longreach.decoding.encoder import Encoder
from longreach.engine.fingerprint import fingerprint
from longreach.engine.snapshots import Snapshot
from longreach.library.frame import tokenizer_fingerprint
from longreach.library.library import Library
from longreach.library.shelf import Manifest, Volume, find
from longreach.serving.errors import ApiError, wrong
from longreach.serving.profiles import Profile, Profiles

DOCUMENT = "\ue000a document of the library\ue000"  # stands in the text of a prompt for what was read
SHELVED = "library:"  # what ids of these documents begin with; a name or an id of the library follows
_OPEN = 8  # documents whose files stay mapped


@dataclass(frozen=True, kw_only=True, eq=False)
class ShelvedDocument:
    """A document as a profile has read it, at the beginning of a prompt.

    Args: ids: of its tokens, those of the opening before it included. chat: whether it stands in a user's message of the chat template.
    length: of a text for which frequencies that hang on it were chosen. taken: what the cache held.
    """

    name: str
    profile: Profile
    ids: tuple[int, ...]
    chat: bool
    length: int
    taken: Snapshot


class ServedLibrary:
    """The documents of a folder that profiles of this server have read. Those that are added while it runs are there at once.

    Args: folder: of the library. profiles: that may go on from a document: those that take up other prompts, too.
    """

    def __init__(self, folder: Path | None, profiles: Profiles, tokenizer: PreTrainedTokenizerBase) -> None:
        self._library, self._tokenizer = Library(folder), tokenizer
        self._known = tokenizer_fingerprint(tokenizer)
        self._profiles = {(fingerprint(each.model), each.method): each for each in profiles.all if each.reuses}
        self._open: OrderedDict[str, ShelvedDocument] = OrderedDict()  # by their ids in the library, the least recently used first
        self._lock = Lock()

    def described(self) -> list[dict[str, Any]]:
        """OpenAI's objects of the documents that can be asked about."""
        found = self._library.entries()
        return [_described(each.id, each.manifest) for each in found if each.manifest and not each.why_not and self._reads(each.manifest)]

    def describe(self, name: str) -> dict[str, Any]:
        """OpenAI's object of one. Raises: ApiError for one that is not there, or that cannot be asked about."""
        volume = self._volume(name, "id")
        try:
            manifest = volume.readable()
            self._profile(manifest)
        except InputError as error:
            raise wrong("id", self._said(error)) from None
        return _described(volume.id, manifest)

    def get(self, name: str, param: str) -> ShelvedDocument:
        """A document, ready to be gone on from. Raises: ApiError for one that is not there, or that no profile of this server has read."""
        volume = self._volume(name, param)
        with self._lock:
            held = self._open.get(volume.id)
            if held is not None:
                self._open.move_to_end(volume.id)
        if held is not None:
            volume.touch()
            return held
        try:
            profile = self._profile(volume.readable())
            known = self._library.recall(volume.id, model=profile.model, tokenizer=self._tokenizer)
        except InputError as error:
            raise wrong(param, self._said(error)) from None
        manifest = known.manifest
        document = ShelvedDocument(
            name=manifest.name, profile=profile, ids=tuple(known.ids), chat=manifest.chat, length=manifest.length, taken=known.taken
        )
        with self._lock:
            self._open[volume.id] = document
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)
        return document

    def _volume(self, name: str, param: str) -> Volume:
        try:
            return find(self._library.folder, name.removeprefix(SHELVED))
        except InputError as error:
            raise ApiError(404, self._said(error), param=param, code="not_found") from None

    def _said(self, error: InputError) -> str:
        """What a client is told: not where the library lies."""
        return str(error).replace(str(self._library.folder), "the library")

    def _profile(self, manifest: Manifest) -> Profile:
        """The one that has read a document. Raises: InputError."""
        if found := self._profiles.get((manifest.weights, manifest.method)):
            return found
        methods = {method for _, method in self._profiles}
        if manifest.method in methods:
            raise InputError(f"{manifest.name} was read by another model, by its config or its weights")
        served = ", ".join(method or "no method" for method in sorted(methods)) or "none that can go on from a document"
        raise InputError(f"{manifest.name} was read under {manifest.under}, and this server's windows are under {served}")

    def _reads(self, manifest: Manifest) -> bool:
        return manifest.tokenizer == self._known and (manifest.weights, manifest.method) in self._profiles


def prompt_of_document(document: ShelvedDocument, text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of a prompt that a document opens: its own, and those of what stands behind it.

    Args: text: of the prompt, in which DOCUMENT stands for the document. One that was read as plain text comes before all of it.
    Raises: InputError for a prompt that does not begin as the document's did when it was read.
    """
    before, mark, behind = text.partition(DOCUMENT)
    if not mark or DOCUMENT in behind:
        raise InputError("the chat template does not give the message of the user as it is, or a message holds a mark of the server's own")
    if not document.chat:
        if tokenizer.chat_template:
            raise InputError(f"{document.name} was read as plain text, and chats of this model have a template; add it without --plain")
        before, behind = "", before + behind
    opening = tuple(tokenizer(before, add_special_tokens=False, verbose=False)["input_ids"])
    if opening != document.ids[: len(opening)]:
        raise InputError(f"{document.name} was read without a system prompt and without tools, and goes on so alone; leave them out")
    return [*document.ids, *Encoder(tokenizer, special=True).encode_inside(behind)]


def _described(identity: str, manifest: Manifest) -> dict[str, Any]:
    return {
        "id": f"{SHELVED}{identity}",
        "object": "file",
        "bytes": manifest.bytes,
        "created_at": int(datetime.fromisoformat(manifest.added).timestamp()),
        "filename": manifest.name,
        "purpose": "user_data",
        "status": "processed",
        "longreach": {"tokens": manifest.tokens, "library": True, "method": manifest.method},
    }

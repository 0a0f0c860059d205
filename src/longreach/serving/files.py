"""Text documents that clients upload, kept in memory."""

import base64
import binascii
import re
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from longreach.serving.errors import ApiError, wrong
from longreach.serving.shelved import SHELVED, ServedLibrary, ShelvedDocument

_DATA = re.compile(r"data:(?P<kind>[\w.+-]+/[\w.+-]+)?(?:;[\w-]+=[\w.-]+)*;base64,(?P<data>.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class AttachedDocument:
    """A document beside a message. Args: name: of its file."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A document that was uploaded. Args: size: in bytes. created: seconds since 1970."""

    id: str
    document: AttachedDocument
    purpose: str
    size: int
    tokens: int
    created: int

    @property
    def described(self) -> dict[str, Any]:
        """OpenAI's object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": self.created,
            "filename": self.document.name,
            "purpose": self.purpose,
            "status": "processed",
            "longreach": {"tokens": self.tokens},
        }


class FileStore:
    """Files by their ids, for as long as the server runs.

    Args: most_bytes: of all files together. library: whose documents are there, too.
    """

    def __init__(self, most_bytes: int, library: ServedLibrary | None = None) -> None:
        self.most_bytes, self.library = most_bytes, library
        self._files: dict[str, StoredFile] = {}
        self._lock = threading.Lock()

    def add(self, name: str, data: bytes, purpose: str, tokens: int) -> StoredFile:
        """Keep a document. Raises: ApiError for one that is no text, and where there is no room."""
        document = AttachedDocument(name=name, text=decoded(data, "file"))
        file = StoredFile(
            id=f"file-{secrets.token_hex(12)}",
            document=document,
            purpose=purpose,
            size=len(data),
            tokens=tokens,
            created=int(time.time()),
        )
        with self._lock:
            held = sum(each.size for each in self._files.values())
            if held + file.size > self.most_bytes:
                raise ApiError(
                    413,
                    f"files take up {held} of {self.most_bytes} bytes, and this one has {file.size}; delete some (DELETE /v1/files/ID), or "
                    "start the server with a larger --max-files",
                    param="file",
                    code="storage_full",
                )
            self._files[file.id] = file
        return file

    def described(self) -> list[dict[str, Any]]:
        """OpenAI's objects of all: those of the library, and what was uploaded, the newest last."""
        with self._lock:
            uploaded = [each.described for each in self._files.values()]
        return [*(self.library.described() if self.library is not None else ()), *uploaded]

    def describe(self, name: str) -> dict[str, Any]:
        """OpenAI's object of a file. Raises: ApiError, 404."""
        if self.library is not None and name.startswith(SHELVED):
            return self.library.describe(name)
        return self._get(name, "id").described

    def document(self, name: str, param: str) -> AttachedDocument | ShelvedDocument:
        """A file as a part of a message. Raises: ApiError, 404; for a document of the library, as `ServedLibrary.get`."""
        if self.library is not None and name.startswith(SHELVED):
            return self.library.get(name, param)
        return self._get(name, param).document

    def _get(self, name: str, param: str) -> StoredFile:
        with self._lock:
            file = self._files.get(name)
        if file is None:
            missing = "; this server has no library" if name.startswith(SHELVED) else ""
            raise ApiError(404, f"No such File object: {name[:100]}{missing}", param=param, code="not_found")
        return file

    def delete(self, name: str) -> None:
        """Forget a file. Raises: ApiError, 404; 403 for a document of the library."""
        if self.library is not None and name.startswith(SHELVED):
            self.library.describe(name)
            raise ApiError(403, "a document of the library is removed by `longreach library remove`", param="id", code="not_allowed")
        self._get(name, "id")
        with self._lock:
            self._files.pop(name, None)


def decoded(data: bytes, param: str) -> str:
    """The text of a document. Raises: ApiError for what is not UTF-8, or empty."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise wrong(param, f"the file is not UTF-8 text (byte {error.start}); this server reads text alone") from None
    if "\0" in text:
        raise wrong(param, "the file holds zero bytes, as no text does; this server reads text alone")
    if not text.strip():
        raise wrong(param, "the file is empty")
    return text


def from_data(url: str, name: str, param: str) -> AttachedDocument:
    """A document in a request. Args: url: `data:text/plain;base64,...`. Raises: ApiError."""
    match = _DATA.fullmatch(url)
    if match is None:
        raise wrong(param, f"{param} must be a data URL in base64, as data:text/plain;base64,...")
    try:
        data = base64.b64decode(match["data"], validate=True)
    except binascii.Error:
        raise wrong(param, f"{param} is not valid base64") from None
    return AttachedDocument(name=name, text=decoded(data, param))

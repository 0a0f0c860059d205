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
    """Files by their ids, for as long as the server runs. Args: most_bytes: of all files together."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
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

    def all(self) -> list[StoredFile]:
        """The newest last."""
        with self._lock:
            return list(self._files.values())

    def get(self, name: str, param: str | None = None) -> StoredFile:
        """A file by its id. Raises: ApiError, 404."""
        with self._lock:
            file = self._files.get(name)
        if file is None:
            raise ApiError(404, f"No such File object: {name[:100]}", param=param or "id", code="not_found")
        return file

    def delete(self, name: str) -> None:
        """Forget a file. Raises: ApiError, 404."""
        self.get(name)
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

"""Messages as clients send them: texts, parts, and documents beside them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from longreach.conversation.messages import Message, check_messages
from longreach.core.errors import InputError
from longreach.serving.errors import wrong
from longreach.serving.fields import Fields
from longreach.serving.files import AttachedDocument, FileStore, from_data
from longreach.serving.shelved import DOCUMENT, ShelvedDocument

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_PARTS = 1_000
_Part = str | AttachedDocument | ShelvedDocument
_IGNORED = ("refusal", "annotations", "audio", "function_call")  # what OpenAI's client sends back of an answer, empty here


@dataclass(frozen=True, kw_only=True)
class AskedMessage:
    """A message. Args: message: as chat templates take it, without content. parts: of the content; None: it has none."""

    message: Message
    parts: tuple[_Part, ...] | None

    @property
    def documents(self) -> list[AttachedDocument]:
        """Those beside it."""
        return [part for part in self.parts or () if isinstance(part, AttachedDocument)]

    @property
    def said(self) -> str:
        """Its text, without documents."""
        return "\n".join(part for part in self.parts or () if isinstance(part, str))

    def whole(self) -> Message:
        """With its content, in which documents stand where they were given, and DOCUMENT for one of a library."""
        if self.parts is None:
            return {**self.message, "content": None}
        opening = "".join(DOCUMENT for part in self.parts if isinstance(part, ShelvedDocument))
        shown = [
            _shown(part) if isinstance(part, AttachedDocument) else part for part in self.parts if not isinstance(part, ShelvedDocument)
        ]
        return {**self.message, "content": opening + "\n".join(shown)}


def read_messages(given: list[Any] | None, files: FileStore) -> tuple[AskedMessage, ...]:
    """The messages of a chat. Raises: ApiError that names the field."""
    if not given:
        raise wrong("messages", "messages must be a list of messages, and not empty")
    found = tuple(_message(Fields(each, f"messages[{number}]"), files) for number, each in enumerate(given))
    whole_messages(found)
    return found


def whole_messages(messages: Sequence[AskedMessage]) -> list[Message]:
    """Messages as chat templates take them. Raises: ApiError for such as make up no conversation."""
    try:
        return check_messages([each.whole() for each in messages])
    except InputError as error:
        raise wrong("messages", f"messages: {error}") from None


def opening_document(messages: Sequence[AskedMessage]) -> ShelvedDocument | None:
    """The document of a library that a chat goes on from. Raises: ApiError for one that stands anywhere else than at its beginning."""
    found = [
        (number, place, part)
        for number, each in enumerate(messages)
        for place, part in enumerate(each.parts or ())
        if isinstance(part, ShelvedDocument)
    ]
    if not found:
        return None
    first = next((number for number, each in enumerate(messages) if each.message["role"] == "user"), None)
    if [each[:2] for each in found] != [(first, 0)]:
        raise wrong(
            "messages", "a document of the library must be the first part of the user's first message, and the only one of its kind"
        )
    if not messages[found[0][0]].said.strip():
        raise wrong("messages", "the message has a document of the library, and no text that asks about it")
    return found[0][2]


def _message(fields: Fields, files: FileStore) -> AskedMessage:
    role = fields.needed_text("role")
    if role not in _ROLES:
        raise fields.refuse("role", f"must be one of {', '.join(_ROLES)}")
    message: Message = {"role": _ROLES[role]}
    parts = _parts(fields, files)
    if calls := fields.items("tool_calls", _PARTS):
        message["tool_calls"] = [_call(Fields(call, f"{fields.path('tool_calls')}[{number}]")) for number, call in enumerate(calls)]
    for name in ("name", "tool_call_id"):
        if (value := fields.text(name)) is not None:
            message[name] = value
    fields.only({name: ([], {}, "") for name in _IGNORED})
    fields.done()
    return AskedMessage(message=message, parts=parts)


def _parts(fields: Fields, files: FileStore) -> tuple[_Part, ...] | None:
    content = fields.take("content")
    if content is None or isinstance(content, str):
        return None if content is None else (content,)
    where = fields.path("content")
    if not isinstance(content, list) or not 0 < len(content) <= _PARTS:
        raise wrong(where, f"{where} must be a text or a list of parts")
    return tuple(_part(Fields(part, f"{where}[{number}]"), files) for number, part in enumerate(content))


def _part(fields: Fields, files: FileStore) -> _Part:
    kind = fields.needed_text("type")
    if kind == "text":
        text = fields.needed_text("text")
        fields.done()
        return text
    file = fields.inner("file")
    if kind != "file" or file is None:
        raise fields.refuse("type", "must be text or file; this server reads text alone")
    fields.done()
    name, data, filename = file.text("file_id"), file.text("file_data"), file.text("filename")
    file.done()
    if (name is None) == (data is None):
        raise wrong(file.where, f"{file.where} must have either file_id or file_data")
    if name is not None:
        return files.document(name, file.path("file_id"))
    return from_data(data or "", filename or "document", file.path("file_data"))


def _call(fields: Fields) -> dict[str, Any]:
    """A call of a tool; its arguments as an object, as chat templates take them."""
    kind, function = fields.text("type") or "function", fields.inner("function")
    if kind != "function" or function is None:
        raise wrong(fields.where, f"{fields.where} must be a call of a function")
    call = {"name": function.needed_text("name"), "arguments": _arguments(function)}
    identity = fields.text("id")
    fields.take("index")  # of a stream that was put together again
    fields.done()
    function.done()
    return {"type": "function", "function": call} | ({} if identity is None else {"id": identity})


def _arguments(function: Fields) -> dict[str, Any]:
    given = function.take("arguments")
    try:
        given = json.loads(given) if isinstance(given, str) and given else given or {}
    except (ValueError, RecursionError):
        raise function.refuse("arguments", "must be a JSON object, as a string") from None
    if not isinstance(given, dict):
        raise function.refuse("arguments", "must be a JSON object, as a string")
    return given


def _shown(document: AttachedDocument) -> str:
    name = document.name.replace('"', "'").replace("\n", " ")
    return f'<document name="{name}">\n{document.text.rstrip()}\n</document>'

"""What stands before every request: its key, the size of its body, and the count of replies."""

import hmac
from collections.abc import Sequence
from pathlib import PurePosixPath

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longreach.serving.answering import JsonReply
from longreach.serving.errors import ApiError
from longreach.serving.metrics import Metrics

_OPEN = ("/", "/page.js", "/page.css", "/health")  # need no key
_KNOWN = (
    "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/files", "/tokenize", "/metrics", *_OPEN,
)  # fmt: skip


class FrontGate:
    """Wraps an application. Args: keys: of which a request has to have one. body: bytes that a request may have."""

    def __init__(self, app: ASGIApp, *, keys: Sequence[str], body: int, metrics: Metrics) -> None:
        self._app, self._keys, self._body, self._metrics = app, [key.encode() for key in keys], body, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, self._limited(receive), counted)
            else:
                await JsonReply(refusal.body, refusal.status, refusal.headers)(scope, receive, counted)
        finally:
            self._metrics.request(_place(scope["path"]), status)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self._keys and scope["path"] not in _OPEN and not self._knows(headers.get(b"authorization", b"")):
            said = (
                "Incorrect API key provided." if b"authorization" in headers else "You didn't provide an API key: Authorization: Bearer KEY"
            )
            return ApiError(401, said, kind="authentication_error", code="invalid_api_key")
        length = headers.get(b"content-length", b"0")
        return self._too_large() if length.isdigit() and int(length) > self._body else None

    def _knows(self, given: bytes) -> bool:
        scheme, _, key = given.partition(b" ")
        known = [hmac.compare_digest(key.strip(), each) for each in self._keys]  # all of them, so that time tells nothing
        return scheme.lower() == b"bearer" and any(known)

    def _limited(self, receive: Receive) -> Receive:
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._body:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is larger than the {self._body} bytes that this server takes (--max-body)", code="body_too_large")


def _place(path: str) -> str:
    """A path as it is counted: without what clients make up."""
    if path in _KNOWN:
        return path
    parent = str(PurePosixPath(path).parent)
    return f"{parent}/ID" if parent in ("/v1/models", "/v1/files") else "other"

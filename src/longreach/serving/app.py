"""The HTTP face: OpenAI's protocol, and a page. docs/guide-serve.md shows every field."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request, UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from longreach.core import registry
from longreach.core.errors import LongreachError
from longreach.serving.answering import JsonReply, answer
from longreach.serving.asks import REFUSE, ChatAsk, chat_ask, completion_ask, overflow_policies, prompt_of
from longreach.serving.errors import ApiError, api_error, wrong
from longreach.serving.fields import Fields, parsed
from longreach.serving.files import decoded
from longreach.serving.gate import FrontGate
from longreach.serving.parts import opening_document
from longreach.serving.replies import ReplyForm
from longreach.serving.service import Service
from longreach.serving.tickets import Ticket, WorkflowTicket, ticket_of

T = TypeVar("T")
_PAGE = Path(__file__).parent / "page"
_PAGE_FILES = {"/": ("index.html", "text/html"), "/page.js": ("page.js", "text/javascript"), "/page.css": ("page.css", "text/css")}
_PURPOSES = ("user_data", "assistants")
_PREPARING = 4  # requests whose prompts are made at a time


def make_app(service: Service) -> FastAPI:
    """The application of a service. Its scheduler runs from the application's start to its end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.scheduler.start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.scheduler.stop)
            for threads in (face.preparing, face.reading):
                threads.shutdown(wait=False, cancel_futures=True)

    face = _Face(service)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(FrontGate, keys=service.keys, body=service.limits.body, metrics=service.metrics)
    app.add_exception_handler(LongreachError, _refused)
    app.add_exception_handler(HTTPException, _no_place)
    app.add_exception_handler(Exception, _failed)
    for path, method, endpoint in face.routes():
        app.add_api_route(path, endpoint, methods=[method], response_model=None)
    return app


class _Face:
    """The endpoints."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.preparing = ThreadPoolExecutor(_PREPARING, "longreach-preparing")
        self.reading = ThreadPoolExecutor(service.scheduler.most_running, "longreach-reading")

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        """(path, method, endpoint) of everything that is served."""
        return [
            ("/v1/models", "GET", self.models),
            ("/v1/models/{name:path}", "GET", self.model),
            ("/v1/chat/completions", "POST", self.chat),
            ("/v1/completions", "POST", self.completion),
            ("/v1/embeddings", "POST", self.embeddings),
            ("/v1/files", "POST", self.upload),
            ("/v1/files", "GET", self.files),
            ("/v1/files/{name}", "GET", self.file),
            ("/v1/files/{name}", "DELETE", self.delete),
            ("/tokenize", "POST", self.tokenize),
            ("/health", "GET", self.health),
            ("/metrics", "GET", self.metrics),
            *((path, "GET", self.page) for path in _PAGE_FILES),
        ]

    async def prepared(self, work: Callable[..., T], *args: Any, asks: bool = False) -> T:
        """What takes a while, in a thread. Args: asks: whether it may wait for the model (a summary does)."""
        return await asyncio.get_running_loop().run_in_executor(self.reading if asks else self.preparing, work, *args)

    async def models(self) -> Response:
        return JsonReply({"object": "list", "data": [self._described()]})

    async def model(self, name: str) -> Response:
        self._check_model(name)
        return JsonReply(self._described())

    async def chat(self, request: Request) -> Response:
        ask = await self.prepared(_read_chat, await request.body(), self.service)
        self._check_model(ask.model)
        ticket = await self._ticket(ask)
        return await answer(request, ask, ticket, self._form(chat=True, logprobs=ask.logprobs is not None))

    async def completion(self, request: Request) -> Response:
        body = await request.body()
        ask = await self.prepared(lambda: completion_ask(parsed(body)))
        self._check_model(ask.model)
        prepared = await self.prepared(self.service.prepare_completion, ask)
        ticket = ticket_of(self.service, prepared, ask)
        return await answer(request, ask, ticket, self._form(chat=False, logprobs=ask.logprobs is not None))

    async def embeddings(self) -> Response:
        raise ApiError(501, "this server makes no embeddings", code="not_implemented")

    async def upload(self, request: Request) -> Response:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise wrong("file", "files are sent as multipart/form-data with the fields file and purpose")
        async with request.form(max_files=1, max_fields=8) as form:
            unknown = sorted(form.keys() - {"file", "purpose"})
            if unknown:
                raise wrong(unknown[0][:200], f"Unrecognized request argument supplied: {unknown[0][:200]}", "unknown_parameter")
            file, purpose = form.get("file"), form.get("purpose")
            if not hasattr(file, "read"):
                raise wrong("file", "file is missing, or no file")
            if not isinstance(purpose, str) or purpose not in _PURPOSES:
                raise wrong("purpose", f"purpose must be one of {', '.join(_PURPOSES)}")
            upload: UploadFile = file  # type: ignore[assignment]
            name, data = upload.filename or "document", await upload.read()
        return JsonReply(await self.prepared(self._stored, name, data, purpose))

    async def files(self) -> Response:
        return JsonReply({"object": "list", "data": await self.prepared(self.service.files.described), "has_more": False})

    async def file(self, name: str) -> Response:
        return JsonReply(await self.prepared(self.service.files.describe, name))

    async def delete(self, name: str) -> Response:
        await self.prepared(self.service.files.delete, name)
        return JsonReply({"id": name, "object": "file", "deleted": True})

    async def tokenize(self, request: Request) -> Response:
        body = await request.body()
        ids = await self.prepared(self._tokenized, body)
        return JsonReply({"count": len(ids), "max_model_len": self.service.profiles.window, "tokens": ids})

    async def health(self) -> Response:
        if self.service.scheduler.closing:
            raise ApiError(503, "the server is closing", kind="server_error", code="server_closing")
        return JsonReply({"status": "ok"})

    async def metrics(self) -> Response:
        scheduler = self.service.scheduler
        gauges: dict[str, tuple[str, float]] = {
            "requests_running": ("Requests that are read or written.", scheduler.running),
            "requests_waiting": ("Requests that are not begun.", scheduler.waiting),
            "tokens_in_flight": ("Tokens that caches of running requests may come to hold.", scheduler.tokens),
            "kept_bytes": ("Bytes kept of prompts for those that begin alike.", scheduler.prefixes.bytes),
        }
        return PlainTextResponse(self.service.metrics.text(gauges), media_type="text/plain; version=0.0.4")

    async def page(self, request: Request) -> Response:
        name, kind = _PAGE_FILES[request.url.path]
        file = _PAGE / name
        if not file.is_file():
            raise ApiError(404, "this server has no page; its API is at /v1", code="not_found")
        headers = {"Content-Security-Policy": "default-src 'self'", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
        return Response(file.read_bytes(), media_type=kind, headers=headers)

    async def _ticket(self, ask: ChatAsk) -> Ticket:
        """A chat in the queue, or a workflow that reads its documents."""
        service, documents = self.service, [document for message in ask.messages for document in message.documents]
        if opening_document(ask.messages) is not None:
            _check_opening(ask)
        elif documents and ask.read is not None and not await self.prepared(service.fits, ask):
            if service.read_document is None:
                raise wrong("longreach.read", "this server reads no documents beyond its window")
            _check_reads(ask)
            question, receipt = await self.prepared(service.asked_of_documents, ask)
            ticket = WorkflowTicket(service, receipt)
            ticket.begin(self.reading, documents, question, ask.read, ask.most)
            return ticket
        asks = ask.overflow.name() != REFUSE
        return ticket_of(service, await self.prepared(service.prepare_chat, ask, asks=asks), ask)

    def _form(self, *, chat: bool, logprobs: bool) -> ReplyForm:
        return ReplyForm(self.service.name, chat=chat, decode=self.service.decoded, logprobs=logprobs)

    def _described(self) -> dict[str, Any]:
        profiles = self.service.profiles
        own = {
            "window": profiles.window,
            "trained_window": profiles.trained_window,
            "profiles": [{"method": each.method, "window": each.window} for each in profiles.all],
            "method": profiles.widest.method,
            "template": "plain" if not self.service.tokenizer.chat_template else "chat",
            "card": self.service.card,
            "read": registry.names("reading") if self.service.read_document is not None else [],
            "overflow": overflow_policies(),
        }
        return {"id": self.service.name, "object": "model", "created": self.service.created, "owned_by": "longreach", "longreach": own}

    def _check_model(self, name: str) -> None:
        if name != self.service.name:
            said = f"The model `{name[:200]}` does not exist; this server has `{self.service.name}`."
            raise ApiError(404, said, param="model", code="model_not_found")

    def _stored(self, name: str, data: bytes, purpose: str) -> dict[str, Any]:
        tokens = self.service.count(decoded(data, "file"))
        return self.service.files.add(name, data, purpose, tokens).described

    def _tokenized(self, body: bytes) -> list[int]:
        fields = Fields(parsed(body))
        name, prompt = fields.text("model"), prompt_of(fields)
        special = fields.take("add_special_tokens")
        for other in ("content", "add_special"):  # llama.cpp's names, which clients send besides
            fields.take(other)
        fields.done()
        if name is not None:
            self._check_model(name)
        if special not in (None, True, False):
            raise wrong("add_special_tokens", "add_special_tokens must be true or false")
        return list(prompt) if isinstance(prompt, tuple) else self.service.encoded(prompt, special=special is not False)


def _check_reads(ask: ChatAsk) -> None:
    """Refuse what has no effect on a workflow that reads documents. Raises: ApiError."""
    useless = {
        "n": ask.choices > 1, "logprobs": ask.logprobs is not None, "tools": ask.tools, "stop": ask.stops, "min_tokens": ask.least,
        "longreach.thinking_budget": ask.thinking is not None, "continue_final_message": ask.goes_on,
    }  # fmt: skip
    for name, given in useless.items():
        if given:
            raise wrong(name, f"{name} has no effect on longreach.read, which reads these documents; leave one of them out")


def _check_opening(ask: ChatAsk) -> None:
    """Refuse what has no effect on a chat that goes on from a document of the library. Raises: ApiError."""
    for name, given in {"longreach.read": ask.read, "longreach.overflow": ask.overflow.name() != REFUSE, "tools": ask.tools}.items():
        if given:
            raise wrong(name, f"{name} has no effect on a chat that goes on from a document of the library; leave it out")


def _read_chat(body: bytes, service: Service) -> ChatAsk:
    return chat_ask(parsed(body), service.files)


async def _refused(request: Request, error: Exception) -> Response:
    told = api_error(error)
    return JsonReply(told.body, told.status, told.headers)


async def _no_place(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = {404: f"Invalid URL ({request.method} {request.url.path[:200]})", 405: f"{request.method} is not allowed here"}
    told = ApiError(status, words.get(status, str(getattr(error, "detail", "")) or "the request cannot be read"))
    return JsonReply(told.body, status)


async def _failed(request: Request, error: Exception) -> Response:
    return await _refused(request, error)

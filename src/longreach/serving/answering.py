"""Turns the events of a request into its reply: whole, or as server-sent events while they come."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from longreach.serving.asks import ChatAsk, ClientAsk
from longreach.serving.errors import api_error
from longreach.serving.job import ChoiceEnded, PieceWritten, PromptRead, ReadingMoved
from longreach.serving.replies import ReplyForm, WholeChoice
from longreach.serving.tickets import Ticket
from longreach.serving.tools import CallParser

T = TypeVar("T")
_GONE = 499  # what proxies write down of a client that left; nobody reads it
_LOG = logging.getLogger(__name__)


class JsonReply(Response):
    """A reply in JSON that holds no half characters, whatever tokens spell."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """As ASCII."""
        return json.dumps(content, allow_nan=False).encode()


class EventStream(StreamingResponse):
    """Server-sent events of a request, which is cancelled when the client goes, or stops reading for good."""

    def __init__(self, ticket: Ticket, chunks: AsyncIterator[dict[str, Any]]) -> None:
        super().__init__(_events(chunks), media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ticket.cancel()


async def answer(request: Request, ask: ClientAsk, ticket: Ticket, form: ReplyForm) -> Response:
    """The reply to a request that stands in the queue."""
    tools = isinstance(ask, ChatAsk) and bool(ask.tools)
    if ask.stream:
        return EventStream(ticket, _chunks(ask, ticket, form, tools))
    try:
        choices = await until_gone(request, _collected(ask, ticket, tools))
    finally:
        ticket.cancel()
    return Response(status_code=_GONE) if choices is None else JsonReply(form.whole(choices, ticket.account))


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """What the work comes to; None where the client has gone before, and the work was cancelled."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _collected(ask: ClientAsk, ticket: Ticket, tools: bool) -> list[WholeChoice]:
    choices = [WholeChoice() for _ in range(ask.choices)]
    async with aclosing(ticket.events()) as events:
        async for event in events:
            if isinstance(event, PieceWritten):
                choices[event.choice].text += event.text
                choices[event.choice].chosen += event.chosen
            elif isinstance(event, ChoiceEnded):
                choices[event.choice].reason = event.reason
    for choice in choices if tools else ():
        _take_calls(choice)
    return choices


def _take_calls(choice: WholeChoice) -> None:
    parser = CallParser()
    parts = [*parser.push(choice.text), *parser.end()]
    choice.calls = [part for part in parts if not isinstance(part, str)]
    if choice.calls:
        choice.text = "".join(part for part in parts if isinstance(part, str)).strip()
        choice.reason = "tool_calls" if choice.reason == "stop" else choice.reason


async def _chunks(ask: ClientAsk, ticket: Ticket, form: ReplyForm, tools: bool) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a stream; the last has what there is to say of the answer."""
    parsers = [CallParser() if tools else None for _ in range(ask.choices)]
    ended = 0
    async with aclosing(ticket.events()) as events:
        async for event in events:
            if isinstance(event, ReadingMoved) and ask.progress:
                yield form.progress(event.stage, event.done, event.total)
            elif isinstance(event, PromptRead) and form.chat:
                for choice in range(ask.choices):
                    yield form.begin(choice)
            elif isinstance(event, PieceWritten):
                for chunk in _piece(event, parsers[event.choice], form):
                    yield chunk
            elif isinstance(event, ChoiceEnded):
                ended += 1
                parser = parsers[event.choice]
                for part in parser.end() if parser else ():
                    yield form.piece(event.choice, str(part), ())
                called = parser is not None and parser.calls > 0 and event.reason == "stop"
                end = form.end(event.choice, "tool_calls" if called else event.reason)
                last = ended == ask.choices and not ask.usage
                yield end | ({"longreach": ticket.account.own} if last else {})
    if ask.usage:
        yield form.last(ticket.account)


def _piece(event: PieceWritten, parser: CallParser | None, form: ReplyForm) -> list[dict[str, Any]]:
    if parser is None:
        return [form.piece(event.choice, event.text, event.chosen)]
    number, found, chosen = parser.calls, [], event.chosen
    for part in parser.push(event.text):
        if isinstance(part, str):
            found.append(form.piece(event.choice, part, chosen))
            chosen = ()
        else:
            found.append(form.call(event.choice, number, part))
            number += 1
    if chosen:  # what they spell is a part of a call, or waits
        found.append(form.piece(event.choice, "", chosen))
    return found


async def _events(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Chunks as server-sent events. An error that comes after the first one is an event, too; no [DONE] follows it."""
    try:
        async for chunk in chunks:
            yield _event(chunk)
    except Exception as error:  # noqa: BLE001 - the status is out already: this is the only way to tell it
        told = api_error(error)
        if told.status == 500:
            _LOG.error("a stream failed", exc_info=error)
        yield _event(told.body)
        return
    yield b"data: [DONE]\n\n"


def _event(content: Any) -> bytes:
    return b"data: " + json.dumps(content, allow_nan=False).encode() + b"\n\n"

"""An endpoint as the one who answers: each question is a request with the whole passage in it."""

from collections.abc import Sequence

from longreach.core.errors import InputError
from longreach.core.progress import SILENT, Progress
from longreach.endpoint.base import ChatModel, Completion, Request
from longreach.endpoint.errors import EndpointError
from longreach.evaluation.asking.passage import Ask, Passage, Response, before_stop
from longreach.evaluation.asking.units import Units


class EndpointAnswerer:
    """Asks a chat model, or a model that completes text, behind an endpoint. Greedy, as far as the endpoint is.

    Args: endpoint: that is asked. units: what lengths count. chat: ask as a user's message; otherwise the prompt is text to be completed,
    with the beginning of the answer. more_tokens: that an answer may take beyond those of its question, for models that think or talk
    before they answer; `units` should count them, too.
    """

    chooses = False

    def __init__(self, endpoint: ChatModel, units: Units, *, chat: bool = True, more_tokens: int = 0) -> None:
        if more_tokens < 0:
            raise InputError(f"more_tokens={more_tokens} must be at least 0")
        self.endpoint, self.units, self.chat, self.more_tokens = endpoint, units, chat, more_tokens

    @property
    def at_once(self) -> int:
        """Passages that are asked about at a time."""
        return self.endpoint.concurrency

    def answers(self, passage: Passage, *, progress: Progress = SILENT) -> list[Response]:
        """One response for each question; what failed says why. Raises: UnusableEndpointError."""
        found = []
        for ask, said in zip(passage.asks, self.endpoint.many(self._request(passage, ask) for ask in passage.asks), strict=True):
            found.append(_response(ask, said))
            progress.advance(self.units.count(passage.text))
        return found

    def _request(self, passage: Passage, ask: Ask) -> Request:
        most = ask.most_tokens + self.more_tokens
        if self.chat:
            return Request(messages=passage.as_messages(ask), most_tokens=most)
        return Request(prompt=passage.as_text(ask), most_tokens=most, stop=self._stops(ask))

    def _stops(self, ask: Ask) -> Sequence[str]:
        return () if self.more_tokens else ask.sure_stops


def _response(ask: Ask, said: Completion | EndpointError) -> Response:
    if isinstance(said, EndpointError):
        return Response(failed=str(said))
    tokens = None if said.prompt_tokens is None else said.prompt_tokens + (said.completion_tokens or 0)
    return Response(written=before_stop(said.text, ask.until), tokens=tokens, seconds=said.seconds)

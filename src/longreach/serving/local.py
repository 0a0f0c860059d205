"""The served model as workflows ask it, inside the server: its requests stand in the same queue as those of clients."""

import threading
import time

from longreach.decoding.sampling import GREEDY, Sampling
from longreach.endpoint.base import ChatModel, Completion, Request, TokenLogprob
from longreach.endpoint.errors import ContextLengthError
from longreach.serving.job import TokenChoice
from longreach.serving.service import Service
from longreach.serving.waiting import run_job


class ServedModel(ChatModel):
    """A model that is served, for threads of the server's own.

    Args: gone: is set where nobody waits for what is asked here any more. Attributes: read, written: tokens so far.
    """

    def __init__(self, service: Service, gone: threading.Event | None = None) -> None:
        self._service, self._gone = service, gone
        self._lock = threading.Lock()
        self.read = self.written = 0

    @property
    def name(self) -> str:
        """The name that clients call it by."""
        return self._service.name

    @property
    def concurrency(self) -> int:
        """How many requests are answered at a time."""
        return self._service.scheduler.most_running

    def ask(self, request: Request) -> Completion:
        """Answer a request. Raises: ContextLengthError; LongreachError where the server is full or closing, or nobody waits any more."""
        began = time.monotonic()
        service, prompts = self._service, self._service.prompts()
        text = prompts.text([dict(message) for message in request.messages]) + request.prefix if request.prompt is None else request.prompt
        ids = service.encoded(text, special=prompts.plain or request.prompt is not None)
        profile = service.profiles.smallest(len(ids) + request.most_tokens)
        if profile is None:
            window = service.profiles.window
            said = f"{len(ids)} tokens and {request.most_tokens} of the answer are more than the window of {window}"
            raise ContextLengthError("this server", said, limit=window, status=400)
        sampling = GREEDY if request.temperature == 0 else Sampling(temperature=request.temperature, seed=request.seed)
        stops = (*request.stop, *(prompts.stops if request.prompt is None else ()))
        plain = request.prompt is None and prompts.plain and not request.prefix
        found = run_job(
            service.scheduler, gone=self._gone, ids=tuple(ids), profile=profile, most=request.most_tokens, sampling=sampling, stops=stops,
            strips=plain, logprobs=request.logprobs,
        )  # fmt: skip
        with self._lock:
            self.read += len(ids)
            self.written += found.written
        return Completion(
            text=found.text, finish_reason=found.reason, prompt_tokens=len(ids), completion_tokens=found.written,
            seconds=time.monotonic() - began,
            logprobs=None if request.logprobs is None else tuple(map(self._logprob, found.chosen)),
        )  # fmt: skip

    def count(self, text: str) -> int | None:
        """Tokens of a text, without any that mark its beginning or end."""
        return self._service.count(text)

    def _logprob(self, chosen: TokenChoice) -> TokenLogprob:
        decode = self._service.decoded
        top = {decode(token): logprob for token, logprob in chosen.top}
        return TokenLogprob(token=decode(chosen.token), logprob=chosen.logprob, top=top)

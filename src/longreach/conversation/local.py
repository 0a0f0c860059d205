"""A model in this process as a chat model, so that whatever works over an endpoint works with it, too."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.conversation.answer import spoken
from longreach.conversation.prompt import Prompts
from longreach.core.errors import InputError
from longreach.core.progress import SILENT, Progress
from longreach.decoding.generation import text, tokens
from longreach.decoding.reading import CHUNK, check_eval
from longreach.decoding.sampling import GREEDY, Sampling
from longreach.endpoint.base import ChatModel, Completion, Request, TokenLogprob
from longreach.endpoint.errors import ContextLengthError
from longreach.engine.apply import applied, given_model
from longreach.engine.intended import intended_window
from longreach.engine.watch import watch_on
from longreach.engine.window import position_limit


class LocalModel(ChatModel):
    """A loaded model under whatever is applied to it. One request at a time.

    Args: window: tokens that prompt and answer may have together; default: what the model or the method reaches. chunk_size: tokens of a
    prompt read at a time. progress: is told of the reading of each prompt.
    Raises: InputError for an encoder-decoder, and a model in training mode.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        window: int | None = None,
        chunk_size: int = CHUNK,
        progress: Progress = SILENT,
    ) -> None:
        self.model: PreTrainedModel = given_model(model)
        check_eval(self.model)
        if self.model.config.is_encoder_decoder:
            raise InputError(f"{type(self.model).__name__} is an encoder-decoder, and chats need a causal language model")
        self.tokenizer, self._chunk_size, self._progress = tokenizer, chunk_size, progress
        self._prompts = Prompts(tokenizer)
        self._window = _reach(self.model) if window is None else window

    @property
    def name(self) -> str:
        """The checkpoint's name, with the method that is applied."""
        name, method = self.model.name_or_path or type(self.model).__name__, applied(self.model)
        return f"{name} under {method}" if method else name

    @property
    def window(self) -> int | None:
        """Tokens that prompt and answer may have together; None: there is no end."""
        return self._window

    def count(self, text: str) -> int:
        """Tokens of a text, without any that mark its beginning or end."""
        return len(self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    def count_chat(self, messages: Sequence[Mapping[str, Any]]) -> int:
        """Tokens of the prompt that a chat makes."""
        return self._prompts.count([dict(message) for message in messages])

    def ask(self, request: Request) -> Completion:
        """Answer a request. Raises: ContextLengthError for one that does not fit; InputError for messages that the template refuses."""
        ids = self._ids(request)
        if self._window is not None and len(ids) + request.most_tokens > self._window:
            raise ContextLengthError(
                self.name,
                f"a prompt of {len(ids)} tokens and an answer of {request.most_tokens} do not fit into the window of {self._window}",
                limit=self._window,
            )
        began = time.perf_counter()
        numbers: list[int] = []
        seen: list[TokenLogprob] = []
        stops = (*request.stop, *(self._prompts.stops if request.prompt is None else ()))
        pieces = spoken(text(self._noted(request, ids, numbers, seen), self.tokenizer), stops)
        said = "".join(pieces)
        return Completion(
            text=said,
            finish_reason="length" if len(numbers) == request.most_tokens else "stop",
            prompt_tokens=len(ids),
            completion_tokens=len(numbers),
            seconds=time.perf_counter() - began,
            logprobs=None if request.logprobs is None else tuple(seen),
        )

    def _ids(self, request: Request) -> list[int]:
        messages = [dict(message) for message in request.messages]
        if request.prompt is not None:
            ids: list[int] = self.tokenizer(request.prompt, truncation=False, verbose=False)["input_ids"]
        elif request.prefix:
            begun = f"{self._prompts.text(messages)}{request.prefix}"
            ids = self.tokenizer(begun, add_special_tokens=self._prompts.plain, truncation=False, verbose=False)["input_ids"]
        else:
            ids = self._prompts.ids(messages)
        if not ids:
            raise InputError("the prompt is empty")
        return ids

    def _noted(self, request: Request, ids: Sequence[int], numbers: list[int], seen: list[TokenLogprob]) -> Iterator[int]:
        """The ids that are written; they and their log-probabilities are written down as they come."""
        sampling = GREEDY if request.temperature == 0 else Sampling(temperature=request.temperature, seed=request.seed)
        logits: deque[Tensor] = deque(maxlen=1)
        watch = None if request.logprobs is None else logits.append
        prompt = torch.tensor([list(ids)])
        for number in tokens(
            self.model, prompt, max_new_tokens=request.most_tokens, sampling=sampling, chunk_size=self._chunk_size,
            progress=self._progress, watch=watch,
        ):  # fmt: skip
            numbers.append(number)
            if request.logprobs is not None:
                seen.append(self._logprob(number, logits[-1][0], request.logprobs))
            yield number

    def _logprob(self, number: int, logits: Tensor, most: int) -> TokenLogprob:
        shares = log_softmax(logits.float(), -1)
        best = shares.topk(most) if most else None
        top = {} if best is None else {self._word(int(at)): float(share) for share, at in zip(*best, strict=True)}
        return TokenLogprob(token=self._word(number), logprob=float(shares[number]), top=top)

    def _word(self, number: int) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(number))


def _reach(model: PreTrainedModel) -> int | None:
    """What the model or the method on it reaches."""
    watch = watch_on(model)
    reach = intended_window(model) if watch is None else watch.reach  # under a method the config may state what that reaches
    return min((limit for limit in (position_limit(model), reach) if limit is not None), default=None)

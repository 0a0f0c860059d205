"""Who answers: the contract, and a model in this process that reads a passage once for all its questions."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from longreach.cache.base import cuts_prompts
from longreach.core.errors import InputError, LongreachError
from longreach.core.progress import SILENT, Progress
from longreach.core.spec import stack_of
from longreach.decoding.generation import end_tokens
from longreach.decoding.reading import CHUNK, new_cache, next_token_losses, prefill, read
from longreach.decoding.shared import puts_back
from longreach.engine.apply import applied
from longreach.engine.prompt import prompt_end
from longreach.engine.snapshots import restore, snapshot
from longreach.engine.whole_length import whole_length
from longreach.evaluation.asking.form import Form
from longreach.evaluation.asking.passage import Ask, Passage, Response
from longreach.evaluation.asking.units import Tokens, Units
from longreach.evaluation.memory import PeakMemory


class Answerer(Protocol):
    """Answers all questions about a passage."""

    units: Units
    chooses: bool  # whether it gives likelihoods of choices

    @property
    def at_once(self) -> int:
        """Passages that it takes at a time, each from a thread of its own; 1: from the thread that it was made in."""

    def answers(self, passage: Passage, *, progress: Progress = SILENT) -> list[Response]:
        """One response for each question, in order. What went wrong with one is said in it."""


class ModelAnswerer:
    """A loaded model, under whatever method is applied to it. Greedy decoding.

    A passage is read once, and what is kept of it is put back for each question; under a method that cuts a prompt at its end, and for
    models whose cache cannot be put back, each question gets a reading of its own.

    Args: chat: ask in the tokenizer's chat template (default: where it has one). units: what lengths count (default: its tokens).
    """

    chooses = True
    at_once = 1

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        chat: bool | None = None,
        units: Units | None = None,
        chunk_size: int = CHUNK,
    ) -> None:
        if model.config.is_encoder_decoder:
            raise InputError(f"{type(model).__name__} is an encoder-decoder, and questions are asked of causal language models")
        self.model, self.tokenizer, self.chunk_size = model, tokenizer, chunk_size
        self.form = Form(tokenizer, bool(tokenizer.chat_template) if chat is None else chat)
        self.units = Tokens(self.form) if units is None else units
        self._ends = end_tokens(model)

    @torch.no_grad()
    def answers(self, passage: Passage, *, progress: Progress = SILENT) -> list[Response]:
        """One response for each question. Raises: LongreachError where logits are not finite, or memory runs out."""
        shared = [*self.form.before_ids(passage.turns), *self.form.passage_ids(passage.text)]
        asked = [self.form.ask_ids(ask) for ask in passage.asks]
        with PeakMemory(self.model.device) as peak:
            if len(passage.asks) > 1 and shared and self._puts_back():
                found = self._from_one_reading(passage.asks, shared, asked, progress)
            else:
                found = [self._alone(ask, [*shared, *ids], len(ids), progress) for ask, ids in zip(passage.asks, asked, strict=True)]
        return [replace(response, peak_bytes=peak.bytes) for response in found]

    def prompt_ids(self, passage: Passage, ask: Ask) -> list[int]:
        """All that the model reads for one question."""
        return [*self.form.before_ids(passage.turns), *self.form.passage_ids(passage.text), *self.form.ask_ids(ask)]

    def _from_one_reading(
        self, asks: Sequence[Ask], shared: Sequence[int], asked: Sequence[Sequence[int]], progress: Progress
    ) -> list[Response]:
        longest = len(shared) + max(map(len, asked))
        cache = new_cache(self.model)
        found = []
        with whole_length(self.model, longest), prompt_end(longest):
            began = time.perf_counter()
            self._read(shared, cache, progress)
            reading = time.perf_counter() - began
            taken = snapshot(cache)
            for ask, ids in zip(asks, asked, strict=True):
                began = time.perf_counter()
                response = self._answer(ask, ids, cache)
                restore(cache, taken)
                spent = time.perf_counter() - began + reading / len(asks)
                found.append(_timed(response, len(shared) / len(asks) + len(ids), spent))
        return found

    def _alone(self, ask: Ask, ids: Sequence[int], question: int, progress: Progress) -> Response:
        cache, began = new_cache(self.model), time.perf_counter()
        with whole_length(self.model, len(ids)), prompt_end(len(ids)):
            if ids[:-question]:
                self._read(ids[:-question], cache, progress)
            response = self._answer(ask, ids[-question:], cache)
        return _timed(response, len(ids), time.perf_counter() - began)

    def _answer(self, ask: Ask, ids: Sequence[int], cache: Cache) -> Response:
        """What follows the ids in what the cache holds."""
        logits = self._read(ids, cache)
        choices = self._likelihoods(ask, ids, logits, cache)
        return Response(written=self._write(ask, logits, cache), likelihoods=choices)

    def _likelihoods(self, ask: Ask, ids: Sequence[int], logits: Tensor, cache: Cache) -> tuple[float, ...]:
        """Log-probability of each choice after the question. The cache is left as it was."""
        if not ask.choices:
            return ()
        before, rests = self.form.choice_ids(ask)
        common = list(before[len(ids) :])  # what all choices begin with beyond the question
        if list(before[: len(ids)]) != list(ids):
            raise InputError("the tokenizer writes a question differently before its answer; ask without choices")
        if not common and len({rest[0] for rest in rests}) == len(rests):  # told apart by their first token
            return tuple(log_softmax(logits.float(), -1)[[rest[0] for rest in rests]].tolist())
        taken, found = snapshot(cache), []
        for rest in rests:
            whole = [*common, *rest]
            predicted = torch.cat([logits[None], *self._logits(whole[:-1], cache)])[len(common) :]
            restore(cache, taken)
            found.append(-float(next_token_losses(predicted, torch.tensor(rest)).double().sum()))
        return tuple(found)

    def _logits(self, ids: Sequence[int], cache: Cache) -> list[Tensor]:
        """Of each chunk of the ids, [n, V]: the logits after each of them."""
        tokens = torch.tensor([list(ids)], device=self.model.device, dtype=torch.long)
        return [part[0] for _, part in read(self.model, tokens, cache=cache, chunk_size=self.chunk_size, logits="all")]

    def _write(self, ask: Ask, logits: Tensor, cache: Cache) -> str:
        """Greedy decoding to the end token, a stop of the question, or its most tokens."""
        stops, text = (*ask.until, *self.form.stops), ""
        ids: list[int] = []
        while len(ids) < ask.most_tokens and (token := int(logits.argmax())) not in self._ends:
            ids.append(token)
            text = str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
            begun = len(text) - len(text.lstrip())  # a line end before the answer does not end it
            at = [place for stop in stops if (place := text.find(stop, begun)) >= 0]
            if at and begun < len(text):
                return text[: min(at)]
            if len(ids) < ask.most_tokens:
                logits = self._read([token], cache)
        return text

    def _read(self, ids: Sequence[int], cache: Cache, progress: Progress = SILENT) -> Tensor:
        """[V]: the logits after the ids."""
        tokens = torch.tensor([list(ids)], device=self.model.device)
        try:
            logits = prefill(self.model, tokens, cache=cache, chunk_size=self.chunk_size, progress=progress)[0]
        except torch.OutOfMemoryError as error:
            what = f"a text of {int(cache.get_seq_length()) + len(ids)} tokens, {self.chunk_size} tokens a forward"
            raise LongreachError(f"the device's memory is too small for {what}; use a smaller chunk size or length") from error
        if not torch.isfinite(logits).all():
            where = f"after {int(cache.get_seq_length())} tokens"
            raise LongreachError(f"the logits are not finite numbers {where}; load the model with another dtype (float32)")
        return logits

    def _puts_back(self) -> bool:
        """Whether what was read can be put back after a question, and a prompt that ends later is not cut before it."""
        return not cuts_prompts(stack_of(applied(self.model))) and puts_back(self.model)


def likeliest(response: Response) -> int | None:
    """Which choice is most likely; None where that is not known."""
    if not response.likelihoods:
        return None
    return max(range(len(response.likelihoods)), key=lambda one: (response.likelihoods[one], -one))


def _timed(response: Response, tokens: float, seconds: float) -> Response:
    return replace(response, tokens=math.ceil(tokens), seconds=seconds)

"""A model of ours as the harness knows models: read in chunks, of any length, under whatever method is applied to it."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from torch.nn.functional import log_softmax
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from longreach.checkpoints.places import checkpoint_name
from longreach.core.errors import InputError
from longreach.core.progress import SILENT, Progress
from longreach.decoding.encoder import Encoder
from longreach.decoding.generation import text as decoded
from longreach.decoding.generation import tokens
from longreach.decoding.reading import CHUNK, check_eval, new_cache, prefill, read, token_losses
from longreach.engine import window
from longreach.engine.prompt import prompt_end
from longreach.engine.snapshots import restore, snapshot
from longreach.engine.whole_length import whole_length
from longreach.evaluation.asking.answerer import puts_back

_MOST = 256  # tokens of an answer, where a task does not say


class HarnessModel(LM):
    """For `simple_evaluate(model=HarnessModel(model, tokenizer), ...)`, also while a method is applied to the model (`longreach.apply`).

    What several continuations have before them is read once, where the cache can be put back. Nothing is ever cut to a window.

    Args: model: a causal language model, in eval mode. tokenizer: of the model. chunk_size: tokens a forward. progress: hears of the work.
    Raises: InputError for an encoder-decoder, and in training mode.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, chunk_size: int = CHUNK, progress: Progress = SILENT
    ) -> None:
        super().__init__()
        if model.config.is_encoder_decoder:
            raise InputError(f"{type(model).__name__} is an encoder-decoder, and the harness asks causal language models here")
        check_eval(model)
        self.model, self.tokenizer, self.chunk_size, self.progress = model, tokenizer, chunk_size, progress
        self._text, self._markup = Encoder(tokenizer), Encoder(tokenizer, special=True)
        self._templated = False

    @property
    def tokenizer_name(self) -> str:
        """For the harness's cache of requests."""
        return checkpoint_name(self.tokenizer.name_or_path).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template itself, for the harness's records. Raises: InputError for one of several by its name."""
        if isinstance(chat_template, str):
            raise InputError("the tokenizer's own chat template is used; give apply_chat_template=True")
        return str(self.tokenizer.chat_template or "") if chat_template else ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as the template writes it; special tokens in prompts are taken for those from here on."""
        self._templated = True
        more: dict[str, Any] = {} if add_generation_prompt else {"continue_final_message": True}
        return str(self.tokenizer.apply_chat_template(chat_history, tokenize=False, add_generation_prompt=add_generation_prompt, **more))

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """For each (context, continuation): log-probability in nats of the continuation, and whether greedy decoding writes it."""
        pairs = [self._split(*request.args) for request in requests]
        found: list[tuple[float, bool]] = []
        self.progress.start("loglikelihood", len(pairs))
        for context, group in groupby(pairs, key=lambda pair: pair[0]):
            continuations = [ids for _, ids in group]
            together = len(continuations) > 1 and puts_back(self.model, self.chunk_size)
            for of in [continuations] if together else [[one] for one in continuations]:
                found += self._after(context, of)
                self.progress.advance(len(of))
        return found

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """The log-probability in nats of whole texts, each read in one piece however long it is, after one first token."""
        found = []
        self.progress.start("loglikelihood", len(requests))
        for request in requests:
            ids = [*self._begin(), *self._text.encode(request.args[0])]
            self._check_length(len(ids))
            losses = token_losses(self.model, torch.tensor([ids], device=self.model.device), chunk_size=self.chunk_size)
            found.append(-float(losses.sum()))
            self.progress.advance(1)
        return found

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What greedy decoding writes after each context. Raises: InputError for a task that wants samples."""
        self.progress.start("generation", len(requests))
        return [self._write(*request.args) for request in requests]

    def _write(self, context: str, settings: dict[str, Any]) -> str:
        if settings.get("do_sample") or float(settings.get("temperature") or 0.0) > 0:
            raise InputError("the task samples, and longreach decodes greedily here; give gen_kwargs do_sample=false,temperature=0")
        until = settings.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        most = int(settings.get("max_gen_toks") or settings.get("max_new_tokens") or _MOST)
        ids = self._context(context)
        self._check_length(len(ids) + most)
        written = ""
        stream = tokens(self.model, torch.tensor([ids]), max_new_tokens=most, chunk_size=self.chunk_size)
        for piece in decoded(stream, self.tokenizer):
            written += piece
            if ends := [place for stop in stops if stop and (place := written.find(stop)) >= 0]:
                written = written[: min(ends)]
                break
        self.progress.advance(1)
        return written

    def _begin(self) -> list[int]:
        """What stands before a text: what the tokenizer puts there, or its first or last token, which predicts the first of the text."""
        if self._text.prefix:
            return list(self._text.prefix)
        start = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.tokenizer.eos_token_id
        if start is None:
            raise InputError("the tokenizer has neither a first nor a last token, so that nothing predicts the first of a text")
        return [int(start)]

    def _context(self, context: str) -> list[int]:
        if self._templated:
            return self._markup.encode(context)
        return [*self._text.prefix, *self._text.encode(context)] if context else self._begin()

    def _split(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of both, encoded as one text; spaces between them belong to the continuation."""
        bare = context.rstrip()
        before = self._context(bare)
        encoder = self._markup if self._templated else self._text
        both = encoder.encode(bare + context[len(bare) :] + continuation)
        inside = len(before) - (0 if self._templated else len(self._text.prefix)) if bare else 0
        return before, both[inside:]

    @torch.no_grad()
    def _after(self, context: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[tuple[float, bool]]:
        longest = len(context) + max(map(len, continuations))
        self._check_length(longest)
        found, cache = [], new_cache(self.model)
        with whole_length(self.model, longest), prompt_end(longest):
            first = prefill(self.model, self._tensor(context), cache=cache, chunk_size=self.chunk_size)
            taken = snapshot(cache) if len(continuations) > 1 else None
            for ids in continuations:
                found.append(self._score(first, ids, cache))
                if taken is not None:
                    restore(cache, taken)
        return found

    def _score(self, first: torch.Tensor, ids: Sequence[int], cache: Cache) -> tuple[float, bool]:
        """Args: first: [1, V], the logits after the context."""
        parts = [first[0][None]]
        if len(ids) > 1:
            after = read(self.model, self._tensor(ids[:-1]), cache=cache, chunk_size=self.chunk_size, logits="all")
            parts += [logits[0] for _, logits in after]
        logits = torch.cat(parts).float()
        wanted = torch.tensor(ids, device=logits.device)
        chosen = log_softmax(logits, -1).gather(1, wanted[:, None])
        return float(chosen.double().sum()), bool((logits.argmax(-1) == wanted).all())

    def _tensor(self, ids: Sequence[int]) -> torch.Tensor:
        return torch.tensor([list(ids)], device=self.model.device)

    def _check_length(self, length: int) -> None:
        if (limit := window.position_limit(self.model)) is not None and length > limit:
            raise InputError(f"a text of {length} tokens: the model {window.cannot_read(limit)}; apply a method that lengthens it")

"""One choice of a job while it is read and written: which token comes next, what text that makes, and when it ends."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedTokenizerBase

from longreach.decoding.generation import PieceDecoder, chooser
from longreach.decoding.sampling import Sampling
from longreach.engine.whole_length import frequencies_for
from longreach.serving.job import ChoiceEnded, Job, PieceWritten, TokenChoice
from longreach.serving.stops import StopText

_SEEDS = 2**63


class OpenText:
    """A prompt and the answer behind it.

    Args: choice: which of the job's. since: the scheduler's step in which it was admitted.

    Attributes: cache: None while a batch holds it. read, fed: tokens of the prompt and of the answer that the cache holds. reused: tokens
    of the prompt that another request had read. written: tokens of the answer. whole: tokens that the text may have in the end.
    seconds_a_token: that the last part of the prompt took.
    """

    def __init__(self, job: Job, choice: int, tokenizer: PreTrainedTokenizerBase, since: int) -> None:
        self.job, self.choice, self.since = job, choice, since
        self.cache: Cache | None = None
        self.read = self.reused = self.fed = 0
        self.seconds_a_token = 0.0
        self.written: list[int] = []
        self.whole = job.whole or len(job.ids) + job.most
        self.alike = frequencies_for(job.profile.model, self.whole)
        self.ended = False
        self._choose = chooser(_for_choice(job.sampling, choice), job.profile.model.device)
        self._decoder, self._stops = PieceDecoder(tokenizer), StopText(job.stops, strips=job.strips)
        self._chosen: list[TokenChoice] = []
        self._thoughts = 0 if job.thinking is not None and job.thinking.begun else None  # tokens; None: it is not thinking

    @property
    def left(self) -> int:
        """Tokens of the prompt that are still to be read."""
        return len(self.job.ids) - self.read

    @property
    def length(self) -> int:
        """Tokens that the cache holds."""
        return self.read + self.fed

    @property
    def ids(self) -> list[int]:
        """Those that the cache holds."""
        return [*self.job.ids[: self.read], *self.written[: self.fed]]

    @property
    def writes(self) -> bool:
        """Whether the next token is to be written."""
        return not self.left and not self.ended

    def take(self, logits: Tensor) -> None:
        """Choose the next token by logits [1, V], and tell what text it makes."""
        job = self.job
        if len(self.written) < job.least and job.profile.ends:
            logits = logits.clone()
            logits[:, sorted(job.profile.ends)] = -torch.inf
        token = self._chosen_by(logits)
        if token in job.profile.ends:
            self._end("stop")
            return
        self.written.append(token)
        if job.logprobs is not None:
            self._chosen.append(_noted(logits, token, job.logprobs))
        self._tell(self._stops.push(self._decoder.push(token)))
        if self._stops.found:
            self._end("stop")
        elif len(self.written) == job.most:
            self._end("length")

    def _chosen_by(self, logits: Tensor) -> int:
        """The next token: the likeliest or a drawn one, or the end of thoughts, where no more of them are allowed."""
        budget = self.job.thinking
        if budget is None:
            return int(self._choose(logits))
        over = self._thoughts is not None and self._thoughts >= budget.tokens
        token = budget.end if over else int(self._choose(logits))
        if token == budget.end:
            self._thoughts = None
        elif token == budget.begin:
            self._thoughts = 0
        elif self._thoughts is not None:
            self._thoughts += 1
        return token

    def _tell(self, text: str, *, last: bool = False) -> None:
        """Args: last: tokens that made no text are told, too."""
        if text or (last and self._chosen):
            self.job.sink(PieceWritten(choice=self.choice, text=text, chosen=tuple(self._chosen)))
            self._chosen.clear()

    def _end(self, reason: str) -> None:
        if not self._stops.found:
            text = self._stops.push(self._decoder.end())
            text += self._stops.end()
            reason = "stop" if self._stops.found else reason
            self._tell(text, last=not self._stops.found)
        self.ended = True
        self.job.sink(ChoiceEnded(choice=self.choice, reason=reason, written=len(self.written)))


def _for_choice(sampling: Sampling, choice: int) -> Sampling:
    """As for the first choice, but for the seed."""
    if sampling.seed is None or not choice:
        return sampling
    settings: dict[str, Any] = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
    return Sampling(**settings, seed=(sampling.seed + choice) % _SEEDS)


def _noted(logits: Tensor, token: int, most: int) -> TokenChoice:
    """Args: logits: [1, V]."""
    scores = logits[0].float().log_softmax(-1)
    best = scores.topk(min(most, len(scores)))
    pairs: Sequence[tuple[int, float]] = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return TokenChoice(token=token, logprob=float(scores[token]), top=tuple(pairs))

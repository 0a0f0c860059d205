"""A model that longreach loaded, as lm-evaluation-harness runs its tasks on: under whatever method is applied to it, and at any length."""

import math
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from jinja2 import TemplateError
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.cache.base import cuts_prompts
from longreach.core.errors import InputError, LongreachError
from longreach.core.progress import SILENT, Progress
from longreach.core.spec import stack_of
from longreach.decoding.generation import end_tokens
from longreach.decoding.reading import CHUNK, check_eval, next_token_losses, read
from longreach.decoding.shared import Beginning, Begun, SharedReading
from longreach.engine.apply import applied, given_model
from longreach.engine.fingerprint import fingerprint
from longreach.engine.intended import intended_window
from longreach.engine.watch import watch_on
from longreach.engine.window import cannot_read, position_limit
from longreach.evaluation.measure import common_row, name_of

_ENDLESS = sys.maxsize
_OF_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed")  # which change nothing where the likeliest token is taken
_MARGIN = 4  # tokens before a stop that tokenizers may need to write it as they do


class HarnessModel(TemplateLM):
    """What `lm_eval.simple_evaluate(model=HarnessModel(model, tokenizer), tasks=[...])` asks, inside `longreach.apply` or outside.

    Made outside, its results name the model's own weights under any method that is applied later.

    Prompts are the same as those of the harness's own `hf` models, and so, without a method and inside the window, are all results but for
    rounding. What differs: requests are read one by one, in chunks, and what they begin with in common once; nothing is ever cut to a
    window. A text that is longer than the model reaches is read whole, with a warning; one that it cannot read is an error.
    `loglikelihood_rolling` rolls windows of `max_length` tokens as the harness defines it; where the method has no end, the text is one
    window.

    Args: model: a causal language model in eval mode. tokenizer: of the model. max_length: tokens of a rolling window (default: what the
    model reaches under the method). max_gen_toks: written at most where a task does not say. prefix_token_id: stands before a text with
    nothing before it (default: BOS, else the end of text). chunk_size: tokens a forward. name: what results call the model. progress: is
    told of the work.
    Raises: InputError for a model in training mode, or with an encoder.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        prefix_token_id: int | None = None,
        chunk_size: int = CHUNK,
        name: str | None = None,
        progress: Progress = SILENT,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = given_model(model), tokenizer
        check_eval(self.model)
        if self.model.config.is_encoder_decoder:
            raise InputError(f"{type(self.model).__name__} is an encoder-decoder, and the harness's requests need a causal language model")
        for number, value in (("max_length", max_length), ("max_gen_toks", max_gen_toks), ("chunk_size", chunk_size)):
            if value is not None and value < 1:
                raise InputError(f"{number}={value} must be at least 1")
        self.max_gen_toks, self.chunk_size, self.progress = max_gen_toks, chunk_size, progress
        self.name, self.weights = name or name_of(self.model), fingerprint(self.model)
        self._max_length, self._prefix_token_id, self._device = max_length, prefix_token_id, self.model.device

    # What the harness asks about the model

    @property
    def eot_token_id(self) -> int | None:
        """The tokenizer's end of text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text with nothing before it. Raises: InputError where the tokenizer has neither BOS nor an end of text."""
        ids = (self._prefix_token_id, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        found = next((each for each in ids if each is not None), None)
        if found is None:
            raise InputError("the tokenizer has neither a BOS nor an EOS token to stand before a text; give prefix_token_id")
        return int(found)

    @property
    def max_length(self) -> int:
        """Tokens that the model reaches, under what is applied to it now; `sys.maxsize` where there is no end."""
        if self._max_length is not None:
            return self._max_length
        watch = watch_on(self.model)
        reach = intended_window(self.model) if watch is None else watch.reach
        return min(_ENDLESS if each is None else each for each in (reach, position_limit(self.model)))

    @property
    def tokenizer_name(self) -> str:
        """By which the harness tells requests apart that it keeps."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the tokenizer's chat template writes it. Raises: InputError where it has none, or refuses the messages."""
        if not self.tokenizer.chat_template:
            raise InputError("the tokenizer has no chat template; ask without (--chat), or choose a chat model")
        options: dict[str, Any] = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        try:
            return str(self.tokenizer.apply_chat_template(chat_history, tokenize=False, **options))
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in chat_history)
            raise InputError(f"the chat template refuses a conversation of {roles}: {error}") from error

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes about the model into its results."""
        return {
            "model": self.name,
            "model_num_parameters": self.model.num_parameters(),
            "model_dtype": str(self.model.dtype),
            "longreach": identity(self),
        }

    # Requests

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of a text, never cut; with the special tokens that the tokenizer puts around it, unless it begins with one already."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(str(self.tokenizer.decode(self.prefix_token_id)))
        ids: list[int] = self.tokenizer(string, add_special_tokens=add_special_tokens, truncation=False, verbose=False)["input_ids"]
        return ids

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """For each (context, continuation): log p(continuation | context) in nats, and whether greedy decoding writes it.

        Raises: InputError for a continuation without tokens of its own, or a text that the model cannot read.
        """
        for request in requests:
            if not request.args[1]:
                raise InputError("a task asks for the likelihood of an empty continuation; give it a choice that is not empty")
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        """Args: requests: (texts, ids of the context, ids of the continuation)."""
        numbers: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, (texts, context, continuation) in enumerate(requests):
            if not context or not continuation:
                raise InputError(f"the tokenizer writes {texts[1][:40]!r} into the token before it; nothing is left to score")
            numbers[tuple(context)].append(number)
        beginnings = []
        for context, asked in numbers.items():
            lengths = [len(requests[number][2]) for number in asked]
            longest = len(context) + max(lengths) - 1  # nothing follows the last token
            beginnings.append(Beginning(ids=context, times=sum(length > 1 for length in lengths), longest=longest))
        self._check_lengths([beginning.longest for beginning in beginnings])
        found: dict[int, tuple[float, bool]] = {}
        for begun in self._reading("log-likelihoods", beginnings):
            for number in numbers[begun.beginning.ids]:
                texts, _context, continuation = requests[number]
                found[number] = self._scored(begun, continuation)
                self.cache_hook.add_partial("loglikelihood", texts, found[number])
        return [found[number] for number in range(len(requests))]

    def _scored(self, begun: Begun, continuation: Sequence[int]) -> tuple[float, bool]:
        ids = torch.tensor([list(continuation)], device=self.model.device)
        parts: Iterator[tuple[int, Tensor]] = iter([(0, begun.logits[None])])
        if len(continuation) > 1:
            after = read(self.model, ids[:, :-1], cache=begun.cache(), chunk_size=self.chunk_size, logits="all")
            parts = chain(parts, ((start + 1, logits[0]) for start, logits in after))
        total, greedy = 0.0, True
        for start, logits in parts:
            targets = ids[0, start : start + len(logits)].to(logits.device)
            total -= float(next_token_losses(logits, targets).double().sum())
            greedy = greedy and bool((logits.argmax(-1) == targets).all())
        return _checked(total), greedy

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """For each text: its log-likelihood in nats, each of its tokens predicted once, from all before it in its window.

        Raises: InputError for a window that the model cannot read.
        """
        if cuts_prompts(stack_of(applied(self.model))):
            why = "cuts a prompt once it has been read, and rolling log-likelihoods read only"
            warnings.warn(f"{applied(self.model)} {why}: they are those of the model itself", stacklevel=2)
        texts = [self._windows(request.args[0]) for request in requests]
        self._check_lengths([len(ids) - 1 for windows in texts for ids, _ in windows])
        self.progress.start("rolling log-likelihoods", sum(len(ids) - 1 for windows in texts for ids, _ in windows))
        found = []
        for request, windows in zip(requests, texts, strict=True):
            total = 0.0
            for ids, predicted in windows:
                tokens = torch.tensor([ids], device=self.model.device)
                parts = read(self.model, tokens[:, :-1], chunk_size=self.chunk_size, logits="all", progress=self.progress)
                losses = [next_token_losses(logits[0], tokens[0, 1 + start :][: logits.shape[1]]).cpu() for start, logits in parts]
                total -= float(torch.cat(losses)[-predicted:].double().sum())
            found.append(_checked(total))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, found[-1])
        return found

    def _windows(self, text: str) -> list[tuple[list[int], int]]:
        """Ids of each window, and how many of the last ones it predicts. The harness says which they are."""
        ids = self.tok_encode(text)
        length = min(self.max_length, max(1, len(ids)))
        windows = get_rolling_token_windows(token_list=ids, prefix_token=self.prefix_token_id, max_seq_len=length, context_len=1)
        return [([*context, *predicted], len(predicted)) for context, predicted in map(make_disjoint_window, windows)]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """For each (context, settings): what greedy decoding writes, before a stop (`until`) or the end, `max_gen_toks` tokens at most.

        Raises: InputError for settings that ask for anything else, or a text that the model cannot read.
        """
        numbers: dict[tuple[int, ...], list[int]] = defaultdict(list)
        settings = []
        for number, (text, given) in enumerate(request.args for request in requests):
            settings.append(_greedy(given, self.max_gen_toks))
            numbers[tuple(self.tok_encode(text) or [self.prefix_token_id])].append(number)
        beginnings = [
            Beginning(ids=ids, times=len(asked), longest=len(ids) + max(settings[number][1] for number in asked) - 1)
            for ids, asked in numbers.items()
        ]
        self._check_lengths([len(ids) for ids in numbers], max((beginning.longest for beginning in beginnings), default=0))
        found: dict[int, str] = {}
        for begun in self._reading("answers", beginnings):
            for number in numbers[begun.beginning.ids]:
                found[number] = self._written(begun, *settings[number])
                self.cache_hook.add_partial("generate_until", requests[number].args, found[number])
        return [found[number] for number in range(len(requests))]

    @torch.no_grad()
    def _written(self, begun: Begun, stops: Sequence[str], most: int) -> str:
        ends = end_tokens(self.model) | ({self.eot_token_id} - {None})
        tail = max((len(stop.encode()) for stop in stops), default=0) + _MARGIN  # a token has a byte at least
        ids: list[int] = []
        logits, cache = begun.logits, begun.cache()
        while len(ids) < most and (token := int(logits.argmax())) not in ends:
            ids.append(token)
            said = str(self.tokenizer.decode(ids[-tail:]))
            if any(stop in said for stop in stops):
                break
            if len(ids) < most:
                for _, part in read(self.model, torch.tensor([[token]], device=self.model.device), cache=cache):
                    logits = part[0, -1]
                    _checked(float(logits.max()))
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        return str(postprocess_generated_text(text, stop=list(stops), think_end_token=None))

    def _reading(self, label: str, beginnings: Sequence[Beginning]) -> Iterator[Begun]:
        self.progress.start(label, sum(len(beginning.ids) for beginning in beginnings))
        return SharedReading(self.model, chunk_size=self.chunk_size, progress=self.progress).each(beginnings)

    def _check_lengths(self, lengths: Sequence[int], most: int = 0) -> None:
        """Refuse what the model cannot read, and tell once what it reads beyond its reach.

        Args: lengths: tokens of the texts. most: tokens that the longest may come to while it is answered.
        """
        limit, reach, longest = position_limit(self.model), self.max_length, max(lengths, default=0)
        if limit is not None and (needed := max(longest, most)) > limit:
            raise InputError(f"a request needs {needed} tokens, and the model {cannot_read(limit)}; apply a method that lengthens it")
        if beyond := sum(length > reach for length in lengths):
            under = f" under {applied(self.model)}" if applied(self.model) else ""
            many = f"{beyond} of {len(lengths)} texts are longer than the {reach} tokens that the model reaches{under}"
            warnings.warn(f"{many} (the longest: {longest}); they are read whole", stacklevel=3)


def identity(model: HarnessModel) -> dict[str, Any]:
    """What rows of longreach say of a model and the method that it runs under: all that determines its results beside the tasks."""
    extra = {"sampling": "greedy", "weights": model.weights}
    row = common_row(model.model, model.name, applied(model.model), model.chunk_size, 1, extra)
    return {"model": row.model, "method": row.method, "version": row.version, "settings": dict(row.settings)}


def _greedy(given: Mapping[str, Any], most: int) -> tuple[list[str], int]:
    """The stops and the most tokens of a request. Raises: InputError where it asks for anything but greedy decoding."""
    settings = dict(normalize_gen_kwargs(dict(given), most))
    stops, tokens = [stop for stop in settings.pop("until") if stop], settings.pop("max_gen_toks")
    if settings.pop("do_sample"):
        raise InputError("a task draws its answers (do_sample), and here they are written greedily; set do_sample=False, temperature=0")
    if settings.pop("num_beams", 1) != 1:
        raise InputError(f"num_beams={given['num_beams']}: answers are written greedily; leave it out")
    if unknown := sorted(settings.keys() - set(_OF_SAMPLING)):
        raise InputError(f"{unknown[0]} has no effect here: answers are written greedily; leave it out of generation_kwargs")
    return stops, tokens


def _checked(value: float) -> float:
    """The value itself. Raises: LongreachError where it is none; minus infinity is one."""
    if math.isnan(value) or value == math.inf:
        raise LongreachError("the logits are not finite numbers; load the model with another dtype (float32)")
    return value

"""Writes ids one at a time, and decodes them as they come; nothing here grows with what was written."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, EncoderDecoderCache, PreTrainedModel, PreTrainedTokenizerBase

from longreach.core.errors import InputError
from longreach.core.progress import SILENT, Progress
from longreach.decoding.reading import CHUNK, new_cache, prefill
from longreach.decoding.sampling import GREEDY, Sampling
from longreach.decoding.sets import PartSet, read_sets
from longreach.engine.cache_argument import cache_argument
from longreach.engine.finite import check_finite
from longreach.engine.sets import cache_for_sets
from longreach.engine.stock import stock_attention
from longreach.engine.whole_length import whole_length

_CONTEXT = 8  # tokens kept for decoding the next: a character takes 4 at most, and some tokenizers look at the token before
_PENDING = 64
_BROKEN = "\ufffd"  # how tokenizers show bytes that are not (yet) a character


def tokens(
    model: PreTrainedModel,
    ids: Tensor,
    *,
    max_new_tokens: int | None,
    sampling: Sampling = GREEDY,
    chunk_size: int = CHUNK,
    progress: Progress = SILENT,
    cache: Cache | None = None,
    before: Tensor | None = None,
    whole: float | None = None,
    sets: Sequence[PartSet] = (),
    watch: Callable[[Tensor], None] | None = None,
) -> Iterator[int]:
    """The ids that follow `ids` [1, T], read in chunks of `chunk_size` tokens (by an encoder: whole); the end token is not among them.

    Memory is that of the model's cache: bounded under a method that bounds it. At each id, and after the last, the cache holds `ids` and
    what was written but for the last id, which is read when the next is asked for.

    Args: cache: of a decoder; what it holds stands before `ids`. before: its ids [1, S], where they are known: by them it is found out
    where logits stop being finite. whole: tokens that the text may have in the end, for frequencies that hang on that; default: what is
    held, `ids`, and what is written at most. sets: parts of `ids` that are read side by side, into a new cache. watch: is given the logits
    [1, V] that each id is chosen from, before it is.
    Raises: LongreachError for logits that are not finite.
    """
    held = 0 if cache is None else int(cache.get_seq_length())
    if whole is None:
        whole = math.inf if max_new_tokens is None else held + ids.shape[1] - sum(each.saved for each in sets) + max_new_tokens
    ends, produced = end_tokens(model), 0
    choose = chooser(sampling, model.device)
    logits, step = _begin(model, ids.to(model.device), cache, before, chunk_size, whole, progress, sets)
    read = 1 if model.config.is_encoder_decoder else held + ids.shape[1]  # a decoder of its own begins with a token of its own
    while max_new_tokens is None or produced < max_new_tokens:
        if watch is not None:
            watch(logits)
        token = choose(logits)
        if (number := int(token)) in ends:
            return
        yield number
        produced += 1
        if produced != max_new_tokens:
            again = partial(step, token)
            with torch.no_grad(), stock_attention(model), whole_length(model, whole):
                logits = check_finite(again().logits[:, -1], model, again, first=read + produced - 1)


def _begin(
    model: PreTrainedModel,
    ids: Tensor,
    cache: Cache | None,
    before: Tensor | None,
    chunk_size: int,
    whole: float,
    progress: Progress,
    sets: Sequence[PartSet],
) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Read `ids` [1, T]: the logits [1, V] of the first token to write, and what reads one token more."""
    progress.start("reading", ids.shape[1])
    if model.config.is_encoder_decoder:
        logits, step = _encode(model, ids, progress)
        return check_finite(logits, model, lambda: _encode(model, ids, SILENT)), step

    def read_into(into: Cache, ids: Tensor, progress: Progress) -> Tensor:
        def read(part: Tensor) -> Tensor:
            return prefill(model, part, cache=into, chunk_size=chunk_size, progress=progress)

        with whole_length(model, whole):
            return read_sets(ids, sets, into, read) if sets else read(ids)

    def empty() -> Cache:
        return cache_for_sets() if sets else new_cache(model)

    def again() -> None:
        read_into(empty(), ids if before is None else torch.cat([before.to(ids), ids], 1), SILENT)

    known = cache is None or before is not None
    cache = empty() if cache is None else cache
    logits = check_finite(read_into(cache, ids, progress), model, again, whole=known)
    return logits, partial(model, **cache_argument(model, cache), use_cache=True, logits_to_keep=1)


@torch.no_grad()
def _encode(model: PreTrainedModel, ids: Tensor, progress: Progress) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Read `ids` [1, T] by the encoder: the logits [1, V] of the first token to write, and what reads one token more.

    Raises: InputError where the model does not say which token its decoder begins with.
    """
    configs = (getattr(model, "generation_config", None), model.config)
    starts = (getattr(config, name, None) for name in ("decoder_start_token_id", "bos_token_id") for config in configs)
    start = next((token for token in starts if token is not None), None)
    if start is None:
        raise InputError(f"the config of {type(model).__name__} states no decoder_start_token_id, with which its text begins")
    encoder: Any = model.get_encoder()
    read = encoder(input_ids=ids, attention_mask=torch.ones_like(ids), return_dict=True)
    progress.advance(ids.numel())
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def step(token: Tensor) -> Any:
        return model(decoder_input_ids=token, encoder_outputs=read, **cache_argument(model, cache), use_cache=True)

    return step(torch.tensor([[start]], device=model.device)).logits[:, -1], step


def chooser(sampling: Sampling, device: torch.device) -> Callable[[Tensor], Tensor]:
    """How the next token is chosen: logits [1, V] -> its id [1, 1]. With a seed, the same for the same logits."""
    if sampling.temperature == 0:
        return lambda logits: logits.argmax(-1, keepdim=True)
    generator, warpers = torch.Generator(device), sampling.warpers()
    generator.seed() if sampling.seed is None else generator.manual_seed(sampling.seed)
    before: Any = torch.empty(1, 0, dtype=torch.long, device=device)  # these warpers do not look at what came before

    def sample(logits: Tensor) -> Tensor:
        scores: Any = logits.float()
        return torch.multinomial(warpers(before, scores).softmax(-1), 1, generator=generator)

    return sample


class PieceDecoder:
    """Decodes ids as they come into pieces of whole characters. Of what was decoded, only a few tokens are kept.

    Special tokens are left out. Bytes that never become a character come out as U+FFFD.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._shown = 0  # characters of the window's text that are out already

    def push(self, token: int) -> str:
        """What is whole now; "" where a character is not."""
        window = self._window
        window.append(token)
        decoded = _decode(self._tokenizer, window)
        whole = _whole(decoded)
        piece = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        if len(window) > 2 * _CONTEXT and (whole == decoded or len(window) > _PENDING):
            del window[:-_CONTEXT]
            self._shown = len(_whole(_decode(self._tokenizer, window)))
        return piece

    def end(self) -> str:
        """What was held back, as it is."""
        return _decode(self._tokenizer, self._window)[self._shown :]


def text(ids: Iterable[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Decode a stream of ids into pieces of whole characters, as `PieceDecoder` does."""
    decoder = PieceDecoder(tokenizer)
    yield from filter(None, map(decoder.push, ids))
    yield from filter(None, [decoder.end()])


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, *, chat: bool = False) -> Tensor:
    """The ids [1, T] of a prompt, whole however long it is; with `chat`, of a user's message in the tokenizer's chat template.

    Raises: InputError for a prompt without tokens, and for `chat` where the tokenizer has no template.
    """
    # A template writes the special tokens itself.
    ids = tokenizer(prompt_text(tokenizer, prompt, chat=chat), add_special_tokens=not chat, truncation=False, verbose=False)["input_ids"]
    if not ids:
        raise InputError("the prompt is empty")
    return torch.tensor([ids])


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: str, *, chat: bool) -> str:
    """A prompt as it is read: as it is, or in the chat template. Raises: InputError."""
    if not prompt.strip():
        raise InputError("the prompt is empty")
    if chat and not tokenizer.chat_template:
        raise InputError("the tokenizer has no chat template; leave chat (--chat) away, or choose a chat model")
    if chat:
        messages = [{"role": "user", "content": prompt}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return prompt


def end_tokens(model: PreTrainedModel) -> set[int]:
    """The ids at which the model ends a text."""
    configs = (getattr(model, "generation_config", None), model.config.get_text_config())
    ends: int | list[int] = next((found for config in configs if (found := getattr(config, "eos_token_id", None)) is not None), [])
    return {ends} if isinstance(ends, int) else set(ends)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _whole(decoded: str) -> str:
    """Without a character at the end of which bytes are still missing: up to 3 of its 4 bytes are there."""
    missing = len(decoded) - len(decoded.rstrip(_BROKEN))
    return decoded[: len(decoded) - min(missing, 3)]

"""Writes on from a prompt of any length, and says beforehand where the model or the method does not reach."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from longreach.attention.base import CrossRetrieval, ReadsSets
from longreach.core.errors import InputError, LongreachError, SpecError
from longreach.core.method import Method
from longreach.core.progress import SILENT, Progress
from longreach.core.spec import stack_of, unparse
from longreach.decoding.generation import prompt_ids, prompt_text, text, tokens
from longreach.decoding.reading import CHUNK, check_eval
from longreach.decoding.sampling import Sampling
from longreach.decoding.sets import PartSet, set_ids
from longreach.engine.apply import applied, apply, check_unapplied, given_model
from longreach.engine.intended import intended_window
from longreach.engine.reach import reach_of
from longreach.engine.watch import watch_on
from longreach.engine.window import position_limit, stated_window

_SINKS = 4  # first tokens that stay where only the last are read
NEW_TOKENS = 256  # written at most where nobody says and memory is not bounded


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    method: str | Method | Iterable[str | Method] | None = None,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    chat: bool = False,
    chunk_size: int = CHUNK,
    progress: Progress = SILENT,
) -> Iterator[str]:
    """Write on from a prompt of any length. The prompt is read whole, in chunks.

    Returns: the text in pieces, as they are produced; `"".join(...)` is all of it. It ends where the model ends it, or at `max_new_tokens`.
    From the first piece until the text has ended, or `.close()` is called, the model is under `method`.

    Args: prompt: the text to go on from. method: to write under, where nothing is applied to the model yet. Without settings, or with
    `factor=auto`, it reaches the end of the answer. max_new_tokens: default: 256, or no end under a method that bounds memory.
    temperature: 0 always takes the likeliest token; above, tokens are drawn, from logits that are divided by it. top_k: draw from so many
    likeliest tokens. top_p: draw from the likeliest tokens that reach this probability together. seed: makes drawing repeatable. chat: give
    the prompt as a user's message, in the tokenizer's chat template. chunk_size: tokens of the prompt read at a time. progress: is told of
    the reading.

    Raises: InputError for an empty prompt, arguments that are out of range or without effect, and a text longer than a table of positions;
    UnsupportedError for a method that does not work here. Warns: where the text goes beyond what the checkpoint is made for, or beyond what
    the method reaches.
    """
    model = given_model(model)
    check_eval(model)
    if not isinstance(prompt, str):
        raise InputError(f"the prompt is a text, not a {type(prompt).__name__}")
    for option, number in (("max_new_tokens", max_new_tokens), ("chunk_size", chunk_size)):
        if number is not None and (number < 1 or number != int(number)):
            raise InputError(f"{option}={number} must be a whole number, at least 1")
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    name = model.name_or_path or type(model).__name__
    ids, sets = read_prompt(model, tokenizer, prompt, chat=chat, method=method)
    task = plan(model, name, ids, method=method, max_new_tokens=max_new_tokens, sets=sets)
    for concern in task.concerns:
        warnings.warn(concern, stacklevel=2)
    return write(model, tokenizer, task, sampling=sampling, chunk_size=chunk_size, progress=progress)


@dataclass(frozen=True, kw_only=True)
class Writing:
    """What is to be written.

    Args: ids: the prompt's, [1, T]. under: the spec of what is applied to the model. stack: what is yet to be. most: tokens; None: without
    end. concerns: to be told. sets: parts of the prompt that are read side by side.
    """

    ids: Tensor
    under: str
    stack: tuple[Method, ...]
    most: int | None
    concerns: tuple[str, ...]
    sets: tuple[PartSet, ...] = ()


def read_prompt(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    chat: bool,
    method: str | Method | Iterable[str | Method] | None,
) -> tuple[Tensor, tuple[PartSet, ...]]:
    """The ids [1, T] of a prompt, and its sets, where a method that is applied, or is to be, reads marks in it.

    Raises: InputError for a prompt without tokens, or one that is marked wrongly.
    """
    stack = stack_of(method, trained_window=1, target=2) or stack_of(applied(model))  # any lengths do
    marked = next((each for each in stack if isinstance(each, ReadsSets)), None)
    if marked is not None:
        parts = marked.parts(prompt_text(tokenizer, prompt, chat=chat))
        if any(isinstance(part, tuple) for part in parts):
            return set_ids(tokenizer, marked.name(), parts, begins=not chat)
    return prompt_ids(tokenizer, prompt, chat=chat), ()


def plan(
    model: PreTrainedModel,
    name: str,
    ids: Tensor,
    *,
    method: str | Method | Iterable[str | Method] | None = None,
    max_new_tokens: int | None = None,
    held: int = 0,
    sets: tuple[PartSet, ...] = (),
) -> Writing:
    """Settle how much is written and under what, before anything is read.

    Args: name: of the model, for words. held: tokens that a cache holds before `ids`. sets: parts of `ids` that are read side by side. The
    others: as `generate`.

    Raises: InputError for a text longer than a table of positions, and for `factor=auto` where the text has no end.
    """
    read, most = held + ids.shape[1] - sum(each.saved for each in sets), max_new_tokens
    window, under = stated_window(model.config), applied(model)
    target = None if window is None else read + (NEW_TOKENS if most is None else most)
    stack = stack_of(method, trained_window=window, target=target)
    if stack:
        check_unapplied(model, stack)
    with apply(model, stack, warn=False):  # what does not work here is refused now, and not with the first piece
        limit = position_limit(model)
    active = stack or stack_of(under)
    bounded = any(each.info.bounded_memory for each in active)
    if most is None and bounded and _goes_by_length(method):
        raise InputError(
            "a method with factor=auto, or without settings, has to know where the text ends; give max_new_tokens (--max-new-tokens), "
            "or write its settings"
        )
    if most is None and not bounded:
        most = NEW_TOKENS
    if limit is not None:
        endless = any(isinstance(each, CrossRetrieval) for each in active)
        _check_room(model, name, limit, 0 if endless else read, most)
    made_for, reach = _limits(model, stack)
    concerns = [*_beyond_the_checkpoint(model, name, made_for, read, most), *_beyond_the_reach(active, reach, read, most)]
    return Writing(ids=ids, under=under, stack=stack, most=most, concerns=tuple(concerns), sets=sets)


def write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Writing,
    *,
    sampling: Sampling,
    chunk_size: int = CHUNK,
    progress: Progress = SILENT,
    cache: Cache | None = None,
) -> Iterator[str]:
    """The text in pieces, as they are produced: the first once the prompt has been read. Methods are applied from then on to the end.

    Args: cache: what it holds stands before the prompt.

    Raises: LongreachError where something else is applied to the model by now.
    """
    if (now := applied(model)) != task.under:
        then, now = (spec or "no method" for spec in (task.under, now))
        raise LongreachError(f"this text was to be written under {then}, and the model is under {now} by now; ask for it again")
    with apply(model, task.stack, warn=False):  # it was said already
        ids = tokens(
            model, task.ids, max_new_tokens=task.most, sampling=sampling, chunk_size=chunk_size, progress=progress, cache=cache,
            sets=task.sets,
        )  # fmt: skip
        yield from text(ids, tokenizer)


def _goes_by_length(method: str | Method | Iterable[str | Method] | None) -> bool:
    """Whether settings are left to the length of the text."""
    try:
        stack_of(method)
    except SpecError:
        return True
    return False


def _check_room(model: PreTrainedModel, name: str, limit: int, read: int, most: int | None) -> None:
    """Refuse a text that is longer than a table of `limit` positions."""
    if model.config.is_encoder_decoder:
        if max(read, most or 0) > limit:
            way = "; --method unlimiformer reads on" if read > limit else ""
            raise InputError(f"{name} has positions for {limit} tokens to read and {limit} to write; this is {read} and up to {most}{way}")
    elif most is None or read + most > limit:
        way = "--method stretch_positions lengthens that"
        room = f"{limit - read} can be written" if limit > read else "nothing can be written"
        raise InputError(f"{name} has positions for {limit} tokens and no more; the prompt has {read}, so {room}; {way}")


def longest(model: PreTrainedModel) -> int | None:
    """Tokens of the longest text that the model reads under what is applied to it; None: there is no end, or none is known."""
    known = [limit for limit in (position_limit(model), *_limits(model, ())) if limit is not None]
    return min(known, default=None)


def _limits(model: PreTrainedModel, stack: Sequence[Method]) -> tuple[int | None, int | None]:
    """(what the checkpoint is made for, what methods reach), in tokens. Args: stack: yet to be applied, to a model without a method."""
    under = stack_of(applied(model))
    brought = "longreach_undo" in vars(model)  # `longreach.load` leaves it there: the method is part of the checkpoint
    bounded = any(method.info.bounded_memory for method in stack or under)
    made_for = None if stack or bounded or (under and not brought) else intended_window(model)
    if stack:
        window = None if model.config.is_encoder_decoder else stated_window(model.config)
        return made_for, None if window is None else reach_of(stack, window)
    watch = watch_on(model)  # frequencies that are applied may say another window by now
    return made_for, None if watch is None else watch.reach


def _beyond_the_checkpoint(model: PreTrainedModel, name: str, window: int | None, read: int, most: int | None) -> list[str]:
    two_sided = model.config.is_encoder_decoder
    total = max(read, most or 0) if two_sided else read + (most or 0)
    if window is None or total <= window:
        return []
    way = f"fit {name} attention_alignment --to {total}" if two_sided else f"stretch {name} --to {total} --out DIR"
    now = f", and --method infllm or --method sinks:window_size={max(1, window - _SINKS)} reads on as it is"
    if two_sided:
        now = ", and --method unlimiformer reads on as it is" if read > window else ""
    return [
        f"{read} tokens read and up to {most} written go beyond the {window} that {name} is made for, where its text falls apart; "
        f"`longreach {way}` extends it{now}"
    ]


def _beyond_the_reach(active: Sequence[Method], reach: int | None, read: int, most: int | None) -> list[str]:
    if reach is None or (most is not None and read + most <= reach):
        return []
    more = "as many as you let it" if most is None else f"up to {most}"
    return [f"{read} tokens read and {more} written go beyond the {reach} that {unparse(active)} reaches, where the text falls apart"]

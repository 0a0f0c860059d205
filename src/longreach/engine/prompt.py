"""Where a prompt ends: what a cache that is cut there has to know, and no forward pass can.

The prompt of a text ends with the first forward pass over its cache, unless whoever reads it knows better: `longreach` reads a prompt in
pieces and says beforehand how long it is, and so does `generate` of a model that methods are applied to. Without a cache a forward pass
is the whole text, and so the prompt. What follows on a prompt, another turn of a chat too, does not belong to it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from types import MethodType
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

_END: ContextVar[int | None] = ContextVar("end of the prompt", default=None)


@contextmanager
def prompt_end(tokens: int) -> Iterator[None]:
    """Inside, the prompt of what is read from its beginning ends after `tokens` tokens, padding included, however few are read at once.

    The outermost call decides.
    """
    before = _END.set(tokens if _END.get() is None else _END.get())
    try:
        yield
    finally:
        _END.reset(before)


def end_of_prompt(first_pass: int) -> int:
    """The slot where the prompt ends of a text whose first forward pass reads so many tokens."""
    end = _END.get()
    return first_pass if end is None else end


@contextmanager
def prompts_end_where_generation_begins(model: PreTrainedModel) -> Iterator[None]:
    """Inside, `model.generate` says how long its prompt is: it reads it in chunks, or with guesses of what follows, or again and again."""

    if "generate" in vars(model):  # somebody's own
        yield
        return

    @wraps(type(model).generate)  # type: ignore[attr-defined]
    def generate(self: PreTrainedModel, inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        given = (inputs, *(kwargs.get(name) for name in ("inputs", "input_ids", "inputs_embeds")))
        prompt = next((each for each in given if isinstance(each, Tensor)), None)
        with ExitStack() as stack:
            if prompt is not None:
                stack.enter_context(prompt_end(prompt.shape[1]))
            return type(self).generate(self, inputs, *args, **kwargs)  # type: ignore[attr-defined]

    vars(model)["generate"] = MethodType(generate, model)  # a bound method is copied with its model
    try:
        yield
    finally:
        vars(model).pop("generate", None)

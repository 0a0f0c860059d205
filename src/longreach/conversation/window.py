"""The window of a conversation: what the model was trained on, what its config or a method reaches, or what the user says."""

from collections.abc import Iterable

from transformers import PreTrainedModel

from longreach.core.errors import InputError, SpecError
from longreach.core.method import Method
from longreach.core.spec import check_spec, stack_of, unparse
from longreach.engine.apply import applied, apply, check_unapplied
from longreach.engine.intended import intended_window
from longreach.engine.watch import watch_on
from longreach.engine.window import position_limit, stated_window


def stack_for(model: PreTrainedModel, method: str | Method | Iterable[str | Method] | None, window: int | None) -> tuple[Method, ...]:
    """The methods meant, which reach `window` where their settings are left open.

    Raises: SpecError; InputError for settings left open without a window; UnsupportedError for a method that does not work here.
    """
    trained = stated_window(model.config)
    try:
        stack = stack_of(method, trained_window=trained if window else None, target=window)
    except SpecError:
        if window is not None or not isinstance(method, str):
            raise
        check_spec(method)  # says what is wrong with it in any case
        raise InputError(
            "a method with factor=auto, or without settings, has to know how long the conversation may get; give window (--window), or "
            "write its settings"
        ) from None
    if stack:
        check_unapplied(model, stack)
    return stack


def window_for(model: PreTrainedModel, name: str, stack: tuple[Method, ...], given: int | None) -> tuple[int | None, tuple[str, ...]]:
    """The window in tokens (None: without end), and what is to be told. Args: name: of the model, for words. stack: yet to be applied.

    Raises: InputError for a window beyond a table of positions.
    """
    with apply(model, stack, warn=False):  # what does not work here is refused now
        limit, active, watch = position_limit(model), stack or stack_of(applied(model)), watch_on(model)
        reach = intended_window(model) if watch is None else watch.reach
        forgetting = [method.spec for method in active if method.info.forgets]
    concerns = [f"{each} forgets what it has no room for, and receipts do not count that; overflow=sinks does" for each in forgetting]
    if limit is not None:
        reach = limit if reach is None else min(limit, reach)
        if given is not None and given > limit:
            raise InputError(f"window={given}: {name} has positions for {limit} tokens and no more")
    if given is not None and reach is not None and given > reach:
        whose = f"that {unparse(active)} reaches" if active else f"that {name} is made for"
        concerns.append(f"a window of {given} tokens goes beyond the {reach} {whose}, where the text falls apart")
    return given or reach, tuple(concerns)

"""Training among texts: while it is set, queries of each row meet keys of other rows in the bands that a method shares."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from longreach.core.errors import InputError
from longreach.engine.engine import NAME, Engine


def set_texts(model: PreTrainedModel, texts: int) -> None:
    """From now on, queries meet keys of `texts` rows of a batch (1: of their own alone), until the method is no longer applied.

    Row i meets those of the rows i to i + texts - 1, beginning anew behind the last. Args: model: to which a method is applied.
    Raises: InputError where no method is applied that longreach computes.
    """
    found = {id(layer.engine): layer.engine for module in model.modules() if (layer := vars(module).get(NAME)) is not None}
    engines = [engine for engine in found.values() if isinstance(engine, Engine)]
    if not engines:
        raise InputError("texts are trained among each other under a method that shares keys; apply one first")
    for engine in engines:
        engine.texts = texts


@contextmanager
def among_texts(model: PreTrainedModel, texts: int) -> Iterator[None]:
    """`set_texts` inside the context."""
    set_texts(model, texts)
    try:
        yield
    finally:
        set_texts(model, 1)

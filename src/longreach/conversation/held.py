"""The cache of a conversation and the ids that it holds: of each prompt only what is new is read."""

from collections.abc import Iterator, Sequence
from itertools import takewhile

import torch
from transformers import PreTrainedModel

from longreach.cache.base import CachePolicy, cuts_prompts
from longreach.core.errors import LongreachError
from longreach.core.method import Method
from longreach.core.progress import SILENT, Progress
from longreach.core.spec import unparse
from longreach.decoding.generation import tokens
from longreach.decoding.reading import CHUNK, new_cache
from longreach.decoding.sampling import Sampling
from longreach.engine._states import has_state
from longreach.engine.snapshots import Snapshot, restore, snapshot


class HeldText:
    """Reads and writes with one cache, text after text; what two texts begin with alike is read once.

    A cache that forgets cannot go back to where they part. Of such a one a snapshot is kept, of the end of the last prompt, which can.

    Args: stack: what is applied to the model, for as long as this is used. window: tokens that a text may have, for frequencies that hang
    on that; None: without end.
    """

    def __init__(self, model: PreTrainedModel, stack: Sequence[Method], *, window: int | None, chunk_size: int = CHUNK) -> None:
        self._model, self._chunk_size = model, chunk_size
        self._whole = float("inf") if window is None else float(window)
        self._never = f"{unparse(stack)} cuts every prompt where it ends" if cuts_prompts(stack) else ""
        self._cache = new_cache(model)
        policies = any((isinstance(each, CachePolicy) and not each.keep_all) or each.info.bounded_memory for each in stack)
        self._forgets = policies or any(getattr(layer, "is_sliding", False) for layer in self._cache.layers)
        self._ids: list[int] = []
        self._taken: Snapshot | None = None
        self._whole_steps = True  # whether the last forward pass was not interrupted
        self.reused = 0
        self.anew = ""

    def tokens(self, ids: Sequence[int], *, max_new_tokens: int, sampling: Sampling, progress: Progress = SILENT) -> Iterator[int]:
        """The ids that follow a prompt. From the first on, `reused` tells how many of the prompt were not read anew, and `anew` why none.

        Raises: LongreachError for logits that are not finite.
        """
        self.reused = self._go_back(ids)
        self._ids, self._whole_steps = list(ids), False
        prompt = torch.tensor([list(ids)])
        written = tokens(
            self._model,
            prompt[:, self.reused :],
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            chunk_size=self._chunk_size,
            progress=progress,
            cache=self._cache,
            before=prompt[:, : self.reused],
            whole=self._whole,
        )
        for number in written:
            self._keep(len(ids))
            self._ids.append(number)
            self._whole_steps = True
            yield number
            self._whole_steps = False
        self._keep(len(ids))
        self._whole_steps = True

    def _keep(self, prompt: int) -> None:
        """Take a snapshot where the prompt ends, if the cache is there and could not go back to it later."""
        if not self._forgets or self._never or int(self._cache.get_seq_length()) != prompt:
            return
        try:
            self._taken = snapshot(self._cache)
        except LongreachError:  # of a kind that has none, as states of linear attention
            self._taken = None

    def _go_back(self, ids: Sequence[int]) -> int:
        """How many of the first ids the cache holds, and nothing else, once it has been taken back to them."""
        held = self._ids[: int(self._cache.get_seq_length())]
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(held, ids[:-1], strict=False)))  # the last one is read
        self.anew = ""
        if not self._ids:
            return 0
        if self._never:
            self.anew = self._never
        elif not self._whole_steps:
            self.anew = "the answer before was interrupted within a step"
        elif same and (same == len(held) or self._crop(len(held) - same)):
            return same
        elif same and self._taken is not None and self._taken.tokens <= same:
            restore(self._cache, self._taken)
            return self._taken.tokens
        elif same:
            self.anew = "the cache forgets, and cannot go back to where the prompts part"
        self._cache, self._taken = new_cache(self._model), None
        return 0

    def _crop(self, count: int) -> bool:
        """Take back the last tokens. Where it cannot be done, the cache is good for nothing but `restore`."""
        if any(has_state(layer) for layer in self._cache.layers):
            return False
        try:
            self._cache.crop(-count)
        except (LongreachError, RuntimeError):  # of the engine, and of transformers: what was pushed out is gone
            return False
        return True

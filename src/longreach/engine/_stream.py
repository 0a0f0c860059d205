"""Where the tokens of one forward pass stand: slots, indices, padding."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from longreach.core.errors import LongreachError
from longreach.engine._channels import Change
from longreach.engine._seats import NEW, NewInserted
from longreach.engine.prompt import end_of_prompt


@dataclass(eq=False)
class Stream:
    """What all layers of one cache share: where rows begin, which tokens are real, and the index of each token.

    start: left padding of each row. prompt: slot where the prompt ends; None where nothing was read. offset: position id of each row's
    first real token [B, 1]. valid: [B, n], only where there is padding elsewhere than on the left. indices: [B | 1, n], kept only for
    frequencies that change. read: [B, n, state], what a method that reads the text made of it after each token. last: the decoder's last
    states [B, n, hidden size], for policies that go by entropy. embeds: what the last tokens were to the decoder, [B, n, hidden size], for
    policies that insert what is made of them. began, until: slots where the forward pass under way begins and ends,
    where it is read in runs.
    """

    host_fields: ClassVar = frozenset({"read"})  # that lie in the host's memory

    start: list[int] = field(default_factory=list)
    started: list[bool] = field(default_factory=list)
    prompt: int | None = None
    offset: Tensor | None = None
    valid: Tensor | None = None
    indices: Tensor | None = None
    read: Tensor | None = None
    last: Tensor | None = None
    embeds: Tensor | None = None
    began: int = 0
    until: int | None = None
    step: object = None
    closed: bool = False

    def apply(self, change: Change) -> None:
        """Follow a change of the batch's rows."""
        rows = change(torch.tensor(self.start)).tolist() if self.start else []
        flags = change(torch.tensor(self.started)).tolist() if self.started else []
        self.start, self.started, self.step = rows, flags, None
        for name in ("offset", "valid", "indices", "read", "last", "embeds"):
            tensor = getattr(self, name)
            if tensor is not None and tensor.shape[0] > 1:  # a single row stands for all of them
                setattr(self, name, change(tensor))


@dataclass(eq=False)
class MaskSpec:
    """What transformers' mask code passes along in place of a mask: the padding, and whether someone asked for a mask of their own.

    arguments: with which the model's own mask would be made. stream: of a forward pass without a cache. inserted: tokens of a method's own
    that stand behind those of the text.
    """

    padding: Tensor | None
    custom: bool
    arguments: dict[str, Any] = field(default_factory=dict)
    stream: Stream = field(default_factory=Stream)
    own: dict[str, Any] = field(default_factory=dict)
    inserted: NewInserted | None = field(default_factory=NEW.get)
    ndim = 4  # transformers hands masks of four dimensions through unchanged

    def own_mask(self, implementation: str) -> Any:
        """The mask that transformers makes for one of its own attention implementations."""
        if implementation not in self.own:
            self.own[implementation] = ALL_MASK_ATTENTION_FUNCTIONS[implementation](**self.arguments)
        return self.own[implementation]

    def contiguous(self) -> "MaskSpec":
        """Itself: `generate` calls this on masks."""
        return self

    def to(self, *args: Any, **kwargs: Any) -> "MaskSpec":
        """Itself: the padding is moved where it is used."""
        return self


def mask_spec(*args: Any, attention_mask: Any = None, use_vmap: bool = False, **kwargs: Any) -> MaskSpec:
    """The mask function registered with transformers, which calls it with named arguments."""
    if isinstance(attention_mask, MaskSpec):
        return attention_mask
    if isinstance(kwargs.get("q_offset"), Tensor):  # a static cache changes its own count in place
        kwargs["q_offset"] = kwargs["q_offset"].clone()
    return MaskSpec(attention_mask, use_vmap, {**kwargs, "attention_mask": attention_mask, "use_vmap": use_vmap})


@dataclass(eq=False)
class Step:
    """The new tokens of one forward pass.

    first: slot of the first one. count: how many. prompt: slot where the prompt ends. t: index of each [B | 1, count]. start: left padding
    of each row, [B]. valid: [B, first + count], only where padding on the left does not tell it all. offset: position id of each row's
    first real token [B | 1, 1].
    skips: indices leave some out, as training on sampled positions has it; then bands go by them. memo: what layers share (rotary
    tables, blocks of the text).
    """

    first: int
    count: int
    prompt: int
    t: Tensor
    start: Tensor
    start_min: int
    start_max: int
    valid: Tensor | None
    offset: Tensor
    skips: bool = False
    memo: dict[Any, Any] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """Slot after the last new token."""
        return self.first + self.count

    @property
    def places(self) -> Tensor:
        """Slots from each row's first real token on, [B | 1, count]; not `t` where padding stands inside a row."""
        start = self.start[:1] if self.start_min == self.start_max else self.start
        return (torch.arange(self.first, self.end, device=start.device)[None] - start[:, None]).clamp(min=0)

    @property
    def before(self) -> Tensor:
        """How many real tokens of its row come before each new one, [B | 1, count]: `t`, unless positions skip."""
        return self.places if self.skips else self.t

    def row(self, index: int) -> "Step":
        """The step of one row of the batch."""
        key = ("row", index)
        if key not in self.memo:
            one, start = slice(index, index + 1), int(self.start[index])
            t, offset = (tensor[one] if tensor.shape[0] > 1 else tensor for tensor in (self.t, self.offset))
            valid = None if self.valid is None or bool(self.valid[index, start:].all()) else self.valid[one]
            self.memo[key] = Step(self.first, self.count, self.prompt, t, self.start[one], start, start, valid, offset, self.skips)
        row: Step = self.memo[key]
        return row


def begins_of(stream: Stream, first: int, count: int, rows: int, padding: Tensor | None) -> list[int]:
    """The slot of each row's first real token, before the `count` new ones from the slot `first` on are written; where there is none yet,
    the slot behind them. Args: padding: [B, first + count], True = real.
    """
    found = []
    for row in range(rows):
        if stream.started and stream.started[row]:
            found.append(stream.start[row])
            continue
        new = None if padding is None else padding[row, first : first + count]
        found.append(first + (0 if new is None else int(new.int().argmax()) if bool(new.any()) else count))
    return found


def make_step(stream: Stream, first: int, x: Tensor, spec: Any, position_ids: Tensor | None, *, cached: bool, keep_indices: bool) -> Step:
    """Advance `stream` by the tokens of x [B, H, T, D], whose first slot is `first`.

    Raises: LongreachError for packed sequences and for masks that are more than padding.
    """
    batch, count, device = x.shape[0], x.shape[2], x.device
    if isinstance(spec, Tensor) or (isinstance(spec, MaskSpec) and spec.custom):
        raise LongreachError(
            "attention masks beyond padding are not supported under a longreach method; pass a two-dimensional attention_mask"
        )
    padding = spec.padding if isinstance(spec, MaskSpec) else None
    if position_ids is None:
        position_ids = torch.arange(first, first + count, device=device)[None]
    if not cached and padding is None and count > 1 and not bool((position_ids.diff() == 1).all()):
        raise LongreachError(
            "packed sequences (position_ids that jump) are not supported under a longreach method; pass the sequences one by one"
        )
    new = None if padding is None else padding[:, first : first + count].to(device)
    if new is not None and new.shape[1] != count:
        raise LongreachError(
            f"attention_mask covers {padding.shape[1] if padding is not None else 0} tokens, but {first + count} were seen"
        )
    if not stream.start:
        stream.start, stream.started = [0] * batch, [False] * batch
    if stream.prompt is None:
        stream.prompt = end_of_prompt(first + count)
    valid = None
    if new is None or bool(new.all()):
        begins = [0] * batch
        stream.started, was_started = [True] * batch, stream.started
        stream.valid = (
            None if stream.valid is None else torch.cat([stream.valid, torch.ones_like(stream.valid[:, :1]).expand(-1, count)], 1)
        )
        valid = stream.valid
    else:
        begins, was_started, valid = _pad(stream, first, new)
    _set_offset(stream, position_ids.to(device), begins, was_started)
    assert stream.offset is not None  # noqa: S101 - set above
    t = (position_ids.to(device) - stream.offset).clamp(min=0)
    if keep_indices:
        old = stream.indices
        stream.indices = t if old is None else torch.cat([old.expand(t.shape[0], -1), t.expand(old.shape[0], -1)], 1)
    start = torch.tensor(stream.start, device=device)
    skips = not cached and count > 1 and bool((t.diff() > 1).any())
    return Step(first, count, stream.prompt, t, start, min(stream.start), max(stream.start), valid, stream.offset, skips)


def _pad(stream: Stream, first: int, new: Tensor) -> tuple[list[int], list[bool], Tensor | None]:
    """Account for the padding `new` [B, T] (True = real). Returns each row's first real token, who had begun, and a mask if needed."""
    count = new.shape[1]
    was_started = list(stream.started)
    before = torch.tensor(was_started, device=new.device)[:, None]
    rises = (new & ~torch.cat([before, new[:, :-1]], 1)).sum(1).tolist()
    begins, some = new.int().argmax(1).tolist(), new.any(1).tolist()
    had = torch.arange(first, device=new.device)[None] >= torch.tensor(stream.start, device=new.device)[:, None]
    for row, started in enumerate(was_started):
        if not started:
            stream.start[row] += begins[row] if some[row] else count
            stream.started[row] = some[row]
    slots = torch.arange(first, first + count, device=new.device)[None]
    regular = bool((new == (slots >= torch.tensor(stream.start, device=new.device)[:, None])).all())
    # Padding at the end of this chunk cannot be seen by any real token of the chunk, only by later ones.
    harmless = stream.valid is None and all(rise <= (not started) for rise, started in zip(rises, was_started, strict=True))
    if stream.valid is not None or not regular:
        stream.valid = torch.cat([had if stream.valid is None else stream.valid, new], 1)
    return begins, was_started, None if harmless else stream.valid


def _set_offset(stream: Stream, position_ids: Tensor, begins: list[int], was_started: list[bool]) -> None:
    """Remember each row's position id at its first real token: indices count from there."""
    if stream.offset is not None and all(was_started):
        return
    if stream.offset is None and not any(begins) and position_ids.shape[0] == 1 and all(stream.started):
        stream.offset = position_ids[:, :1]
        return
    ids = position_ids.expand(len(begins), -1)
    at = ids.gather(1, torch.tensor(begins, device=ids.device)[:, None])
    if stream.offset is None:
        stream.offset = at
    else:
        stream.offset = torch.where(torch.tensor(was_started, device=ids.device)[:, None], stream.offset.expand_as(at), at)

"""Buffers that grow at the end and shrink at the front, and changes of a batch's rows."""

import torch
from torch import Tensor

_FIRST_CAPACITY = 64
_GROWTH = 1.5
_SPARE = 4  # times what is live: larger buffers are given back


class Change:
    """Rows of the batch: pick by index, or repeat each."""

    def __init__(self, *, pick: Tensor | None = None, repeat: int | None = None) -> None:
        self.pick, self.repeat = pick, repeat

    def __call__(self, tensor: Tensor) -> Tensor:
        """The changed tensor."""
        if self.repeat is not None:
            return tensor.repeat_interleave(self.repeat, 0)
        return tensor.index_select(0, self.pick.to(tensor.device)) if self.pick is not None else tensor


class Channels:
    """Tensors [B, K, n, D] that grow at the end and shrink at the front together; views of them stay contiguous along D.

    K and D may differ from channel to channel.
    """

    def __init__(self) -> None:
        self.data: dict[object, Tensor] = {}
        self.begin = self.end = 0

    def __len__(self) -> int:
        return self.end - self.begin

    def reserve(self, like: dict[object, Tensor], tokens: int) -> None:
        """Make room for `tokens` more, moving what is live to the front or to a larger buffer."""
        if self.data and self.end + tokens <= next(iter(self.data.values())).shape[2]:
            return
        live = len(self)
        for name, new in like.items():
            old = self.data.get(name)
            # A bounded store needs room for its live part twice: then moving it is paid for by as many appended tokens.
            if old is not None and 2 * live + tokens <= old.shape[2]:
                old[:, :, :live] = old[:, :, self.begin : self.end].clone() if self.begin < live else old[:, :, self.begin : self.end]
                continue
            capacity = max(_FIRST_CAPACITY, int((live + tokens) * _GROWTH), 2 * live + tokens if self.begin else 0)
            b, k, _, d = new.shape
            grown = new.new_empty(b, k, capacity, d)
            if old is not None:
                grown[:, :, :live] = old[:, :, self.begin : self.end]
            self.data[name] = grown
        self.begin, self.end = 0, live

    def append(self, new: dict[object, Tensor]) -> None:
        """Add `new` [B, K, T, D] of every channel."""
        tokens = next(iter(new.values())).shape[2]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in new.values()):  # writing in place would break gradients
            joined = {name: torch.cat([self.view(name), tensor], 2) if self.data else tensor for name, tensor in new.items()}
            self.data, self.begin, self.end = joined, 0, len(self) + tokens
            return
        self.reserve(new, tokens)
        for name, tensor in new.items():
            self.data[name][:, :, self.end : self.end + tokens] = tensor
        self.end += tokens

    @classmethod
    def holding(cls, tensors: dict[object, Tensor]) -> "Channels":
        """Channels that are these tensors, without a copy."""
        channels = cls()
        channels.data, channels.end = tensors, next(iter(tensors.values())).shape[2]
        return channels

    def replace(self, name: object, tensor: Tensor) -> None:
        """Put `tensor` in place of the live part of a channel."""
        old = self.data[name]
        if torch.is_grad_enabled() and (tensor.requires_grad or old.requires_grad):  # writing in place would break gradients
            self.data[name] = torch.cat([old[:, :, : self.begin], tensor.to(old.dtype), old[:, :, self.end :]], 2)
        else:
            old[:, :, self.begin : self.end] = tensor

    def rewrite_last(self, name: object, tensor: Tensor) -> None:
        """Put `tensor` [B, K, n, D] in place of the last tokens of a channel."""
        old, first = self.data[name], self.end - tensor.shape[2]
        if torch.is_grad_enabled() and (tensor.requires_grad or old.requires_grad):  # writing in place would break gradients
            self.data[name] = torch.cat([old[:, :, :first], tensor.to(old.dtype), old[:, :, self.end :]], 2)
        else:
            old[:, :, first : self.end] = tensor

    def view(self, name: object) -> Tensor:
        """The live part of a channel."""
        return self.data[name][:, :, self.begin : self.end]

    def row(self, index: int) -> "Channels":
        """These channels of one row of the batch, without a copy."""
        channels = Channels()
        channels.data = {name: tensor[index : index + 1] for name, tensor in self.data.items()}
        channels.begin, channels.end = self.begin, self.end
        return channels

    def keep_last(self, count: int) -> None:
        """Forget all but the last `count` tokens, and give buffers back that are much larger."""
        self.begin = max(self.begin, self.end - count)
        capacity = next((tensor.shape[2] for tensor in self.data.values()), 0)
        if self.begin and capacity > _SPARE * max(_FIRST_CAPACITY, len(self)):
            self.data = {name: self.view(name).clone() for name in self.data}
            self.begin, self.end = 0, len(self)

    def apply(self, change: Change) -> None:
        """Replace every buffer (batch rows picked, repeated, ...)."""
        self.data = {name: change(tensor) for name, tensor in self.data.items()}

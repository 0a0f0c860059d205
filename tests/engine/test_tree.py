"""Plain data out of what a cache holds, and back."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pytest
import torch
from torch import Tensor

from longreach.core.bands import TRUE, Clamped
from longreach.engine._tree import Reader, Writer, in_place

S = TypeVar("S")


@dataclass(frozen=True)
class State:
    channels: dict[object, Tensor]
    parts: tuple[tuple[Tensor, Tensor], ...] = ()
    rest: Tensor | None = None


@dataclass
class Row(Generic[S]):
    state: S | None
    states: list[S | None]
    name: str = ""
    count: int = 0


MAPS = (TRUE, Clamped(3))


def there_and_back(hint, value):
    writer = Writer(MAPS)
    node = writer.write(value)
    return Reader(writer.frozen, writer.tensors, in_place, MAPS, State).read(hint, node), writer


def test_what_was_one_object_is_one_again():
    whole = torch.arange(6.0).view(2, 3)
    one, two = State(channels={TRUE: whole, "v": whole}), State(channels={Clamped(3): whole}, parts=((whole, whole + 1),))
    row, writer = there_and_back(Row[Any], Row(state=one, states=[one, None, two], name="a", count=2))
    assert row.state is row.states[0]
    assert row.states[1] is None
    assert list(row.states[2].channels) == [Clamped(3)]
    assert row.state.channels["v"] is row.state.channels[TRUE] is row.states[2].parts[0][0]
    assert (row.name, row.count, len(writer.tensors)) == ("a", 2, 2)


def test_a_part_of_a_buffer_is_copied_and_no_other_part_of_it_is_taken_for_it():
    buffer = torch.arange(6.0)
    parts = (buffer[:2], buffer[:3], buffer[:3], buffer, buffer.view(2, 3))
    found, writer = there_and_back(tuple[Tensor, ...], parts)
    assert all(torch.equal(ours, part) for ours, part in zip(found, parts, strict=True))
    assert found[1] is found[2]
    assert len({tensor.untyped_storage().data_ptr() for tensor in writer.tensors}) == len(writer.tensors) == 4
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in writer.tensors)


def test_what_is_no_plain_data_cannot_be_written():
    with pytest.raises(TypeError, match="a cache holds a set, which cannot be written as plain data"):
        Writer().write({"a": {1}})


@pytest.mark.parametrize(
    ("hint", "node"),
    [(int, True), (int, "1"), (str, 1), (float, 1), (list[int], [1, "2"]), (tuple[int, int], [1]), (State, 1), (Tensor, 0)],
)
def test_what_is_something_else_cannot_be_read(hint, node):
    with pytest.raises((ValueError, TypeError, LookupError)):
        Reader([], [], in_place).read(hint, node)

"""Finds the tables of learned positions in a loaded model, and lengthens them.

Families call them differently and number their rows from 0, from 2 or from `padding_idx + 1`. What the model looks up for a few tokens
says both, so no family is named here.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from longreach.core.errors import UnsupportedError
from longreach.positions.base import TableMethod

_PROBE_TOKENS = 6
_MAXIMUM = "max_position_embeddings"  # families with a name of their own map it to this one


@dataclass(frozen=True, slots=True)
class Table:
    """A table of learned positions. Args: module: whose weight it is. owner: the module that holds it. first: the row of position 0."""

    module: nn.Embedding
    owner: nn.Module
    first: int

    @property
    def positions(self) -> int:
        """How many positions it has: its rows without those before the first position."""
        return self.module.num_embeddings - self.first


def position_tables(model: PreTrainedModel) -> list[Table]:
    """The tables of absolute positions that the model adds to the tokens of a text; encoder-decoders have two.

    Raises: UnsupportedError where the model cannot be run on text alone.
    """
    found = [(owner, module) for owner in model.modules() for module in owner.children() if isinstance(module, nn.Embedding)]
    if len(found) < 2:  # the tokens' own: no need to run the model
        return []
    rows = _looked_up(model)
    tables: dict[int, Table] = {}  # a module may have several owners
    for owner, module in found:
        seen = rows.get(id(module.weight))
        if seen is not None and seen == list(range(seen[0], seen[0] + _PROBE_TOKENS)):
            tables.setdefault(id(module), Table(module, owner, seen[0]))
    return list(tables.values())


@contextmanager
def lengthened(model: PreTrainedModel, method: TableMethod) -> Iterator[None]:
    """The model's tables of positions are the method's, with the config and all that is as long as the tables; undone on leaving.

    Raises: UnsupportedError for a model without such a table; SpecError for settings that do not fit it.
    """
    tables = position_tables(model)
    _check(model, tables, method)
    config = model.config.get_text_config()
    longer: dict[int, nn.Parameter] = {}
    with ExitStack() as undo:
        for table in tables:
            weight, positions = table.module.weight, table.positions
            places = method.places(positions)
            if id(weight) not in longer:  # tied tables stay tied
                longer[id(weight)] = nn.Parameter(read_at(weight, table.first, places), requires_grad=weight.requires_grad)
            _set(table.module, "weight", longer[id(weight)], undo)
            _set(table.module, "num_embeddings", table.first + len(places), undo)
            _lengthen_buffers(table.owner, len(places) - positions, undo)
        added = len(places) - positions
        _lengthen_masks(model, method, positions, added, undo)
        _set(config, _MAXIMUM, getattr(config, _MAXIMUM) + added, undo)
        yield


@torch.no_grad()
def read_at(weight: Tensor, first: int, places: Tensor) -> Tensor:
    """[first + len(places), D] of weight [first + P, D]: the rows before position 0, then the table at `places` (see TableMethod)."""
    table = weight.detach().cpu().double()  # some devices have no float64
    below = places.long().clamp(max=max(0, len(table) - first - 2))
    above = (below + 1).clamp(max=len(table) - first - 1)
    rows = torch.lerp(table[first + below], table[first + above], (places - below)[:, None])
    return torch.cat([table[:first], rows]).to(weight)


def _check(model: PreTrainedModel, tables: list[Table], method: TableMethod) -> None:
    name = type(model).__name__
    if not tables:
        instead = "choose a method for rotary models, or a model with learned positions"
        raise UnsupportedError(method.spec, name, "it has no table of learned positions", instead)
    if any("Sinusoidal" in type(table.module).__name__ for table in tables):
        why = "its positions are computed (sinusoids), not learned"
        raise UnsupportedError(method.spec, name, why, "choose a model with learned positions")
    if len({table.positions for table in tables}) > 1 or getattr(model.config.get_text_config(), _MAXIMUM, None) is None:
        why = "its config does not state one length for its tables of positions"
        raise UnsupportedError(method.spec, name, why, "choose a model with one")


class _Lookups(TorchFunctionMode):
    """Notes which rows of which weight are looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[int, list[int]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.embedding:
            self.rows[id(args[1])] = args[0].flatten().tolist()
        return func(*args, **(kwargs or {}))


def _looked_up(model: PreTrainedModel) -> dict[int, list[int]]:
    """id of a weight -> the rows that were last looked up in it, for a text of a few tokens."""
    text = model.config.get_text_config()
    numbers = (number for number in range(3, text.vocab_size, 2) if number != text.pad_token_id)  # never two in a row: positions are
    ids = torch.tensor([[next(numbers) for _ in range(_PROBE_TOKENS)]], device=model.device)
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})}
    read: Any = getattr(model, "get_text_features", model)  # where a text tower stands beside others
    with torch.no_grad(), _Lookups() as lookups:
        try:
            read(**inputs)
        except (TypeError, ValueError) as error:  # what models raise for inputs that are missing
            why = f"it cannot be run on text alone ({str(error).splitlines()[0]})"
            raise UnsupportedError("a search for tables of positions", type(model).__name__, why, "choose a language model") from error
    return lookups.rows


def _lengthen_buffers(owner: nn.Module, added: int, undo: ExitStack) -> None:
    """What stands beside a table, one number a position, that its family slices or gathers from."""
    for name in ("position_ids", "token_type_ids"):
        buffer = dict(owner.named_buffers(recurse=False)).get(name)
        if buffer is None:
            continue
        length = buffer.shape[-1] + added
        numbers = buffer.flatten()[0] + torch.arange(length, device=buffer.device) if name == "position_ids" else buffer.new_zeros(length)
        _set(owner, name, numbers.to(buffer.dtype).expand(*buffer.shape[:-1], -1), undo)


def _lengthen_masks(model: PreTrainedModel, method: TableMethod, positions: int, added: int, undo: ExitStack) -> None:
    """Causal masks [..., P, P] that some families keep as a buffer `bias`; what is visible hangs on the distance alone."""
    for module in model.modules():
        mask = dict(module.named_buffers(recurse=False)).get("bias")
        if mask is None or mask.ndim < 2 or mask.shape[-2:] != (positions, positions):
            continue
        if not torch.equal(_band(mask, positions), mask):
            why = f"the mask of its {type(module).__name__} is not one of distances"
            raise UnsupportedError(method.spec, type(model).__name__, why, "choose another model")
        _set(module, "bias", _band(mask, positions + added), undo)


def _band(mask: Tensor, length: int) -> Tensor:
    """[..., length, length]: what the last row of a causal mask [..., P, P] shows at each distance; beyond P as at its end."""
    distance = torch.arange(length, device=mask.device)[:, None] - torch.arange(length, device=mask.device)
    by_distance = mask.flatten(0, -3)[0, -1].flip(0) if mask.ndim > 2 else mask[-1].flip(0)
    seen = by_distance[distance.clamp(0, len(by_distance) - 1)]
    return torch.where(distance < 0, torch.zeros_like(seen), seen).expand(*mask.shape[:-2], -1, -1)


def _set(owner: Any, name: str, value: Any, undo: ExitStack) -> None:
    before = getattr(owner, name)
    setattr(owner, name, value)
    undo.callback(setattr, owner, name, before)

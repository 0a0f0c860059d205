"""What holds for the caches that a model fills under every method: one reading serves many texts that follow it."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from longreach.attention.base import AttentionPolicy
from longreach.cache.base import BudgetWrapper, CachePolicy
from longreach.core.errors import UnsupportedError
from longreach.core.method import Method
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.snapshot_files import load, save
from longreach.engine.snapshots import restore, snapshot
from longreach.positions.base import PositionsMethod
from longreach.testing.conformance.base import WINDOW, Check, left_padding, model_for, require, same
from longreach.testing.models import random_ids

# Tokens of the forward passes over what is read once, which one row ends at the window with, and over what follows it.
_READ, _FOLLOWING = (17, WINDOW - 17), (5, 1, 6)


def check_snapshots(method: Method) -> int:
    """After a snapshot is restored a left-padded batch goes on bit for bit as a fresh cache does: again and again, also from a file."""
    model = model_for(method)
    with apply(model, method, warn=False):
        return _one_reading_serves_many(model)


def check_snapshots_of_plain_caches(method: Method) -> int:
    """The same of transformers' own caches, under a method that leaves attention to the model, and of the model as it is."""
    return _one_reading_serves_many(model_for(method)) + check_snapshots(method)


@torch.no_grad()
def _one_reading_serves_many(model: PreTrainedModel) -> int:
    text, one, other = random_ids(2, sum(_READ)), random_ids(2, sum(_FOLLOWING), seed=1), random_ids(2, sum(_FOLLOWING), seed=2)
    fresh, cache = DynamicCache(config=model.config), DynamicCache(config=model.config)
    _read(model, fresh, text, _READ)
    wanted = _read(model, fresh, other, _FOLLOWING)
    _read(model, cache, text, _READ)
    taken = snapshot(cache)
    first = _read(model, cache, one, _FOLLOWING)
    compared = 0
    for changed, following, logits in ((False, other, wanted), (True, one, first), (True, other, wanted)):
        if changed:
            cache.crop(-1)
            cache.batch_select_indices(torch.tensor([1, 1]))
        restore(cache, taken)
        compared += same(_read(model, cache, following, _FOLLOWING), logits, "after a snapshot was restored")
    with tempfile.TemporaryDirectory() as folder:
        save(taken, file := Path(folder, "taken.safetensors"), model)
        loaded = load(file, model)
        for again in (DynamicCache(config=model.config), cache):
            restore(again, loaded)
            compared += same(_read(model, again, other, _FOLLOWING), wanted, "after a snapshot was loaded and restored")
    return compared


def _read(model: PreTrainedModel, cache: DynamicCache, ids: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Logits [B, T, V] of forward passes over `sizes` tokens each; the first row begins with padding."""
    seen, parts = cache.get_seq_length(), []
    padding = left_padding((sum(_READ) - 11, sum(_READ)), sum(_READ))
    for part in ids.split(sizes, 1):
        seen += part.shape[1]
        mask = torch.cat([padding, padding.new_ones(2, max(0, seen - sum(_READ)))], 1)[:, :seen]
        parts.append(model(part, attention_mask=mask, **cache_argument(model, cache), use_cache=True).logits)
    return torch.cat(parts, 1)


def check_alone_it_is_refused(method: Method) -> int:
    """What divides the budget of another policy says so where there is none."""
    try:
        with apply(model_for(method), method):
            pass
    except UnsupportedError as error:
        return require(str(error).startswith(f"{method} cannot be used with no cache policy before it"), f"unclear: {error}")
    return require(False, "a budget was divided that nobody has")


def _plain(method: Method) -> bool:
    return isinstance(method, PositionsMethod) and not method.needs_engine


def _runs(method: Method) -> bool:
    return isinstance(method, AttentionPolicy | CachePolicy | PositionsMethod) and not (_plain(method) or isinstance(method, BudgetWrapper))


CHECKS = (
    Check(run=check_snapshots, applies=_runs),
    Check(run=check_alone_it_is_refused, applies=lambda method: isinstance(method, BudgetWrapper)),
    Check(run=check_snapshots_of_plain_caches, applies=_plain, tier="contract"),
)

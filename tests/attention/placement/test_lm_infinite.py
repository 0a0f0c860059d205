"""LM-Infinite a second time, token by token from arXiv:2308.16137: a Lambda-shaped mask, and distances bounded by a limit."""

import pytest
import torch

from longreach.attention.placement.lm_infinite import LmInfinite
from tests.attention.one_head import assert_same, attention, random_head, rotated


def token_by_token(num_sinks, window, limit, q, k, v):
    rows = []
    for i in range(len(q)):
        seen = [j for j in range(i + 1) if j < num_sinks or i - j < window]
        logits = torch.stack([rotated(q[i], min(i - j, limit)) @ k[j] for j in seen])
        rows.append(attention(logits[None], v[seen])[0])
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("num_sinks", "window", "limit"), [(4, 16, None), (4, 16, 24), (2, 16, 5), (0, 8, None), (1, 1, None), (10, 4, 7), (4, 16, 1)]
)
def test_it_is_the_mask_and_the_limit(num_sinks, window, limit):
    q, k, v = random_head(50)
    wanted = token_by_token(num_sinks, window, window if limit is None else limit, q, k, v)
    assert_same(LmInfinite(num_sinks=num_sinks, window_size=window, limit=limit), wanted, q, k, v)


def test_the_two_branches_of_the_authors_code():
    # Their code with its own limit (the window): within the window true positions, first tokens beyond it by a query at `window`.
    window, num_sinks, length = 16, 4, 50
    q, k, v = random_head(length)
    positions = torch.arange(length)
    distance = positions[:, None] - positions[None]
    local = (rotated(q, positions) @ rotated(k, positions).mT).masked_fill((distance < 0) | (distance > window - 1), float("-inf"))
    stationary = (rotated(q, torch.full_like(positions, window)) @ k[:num_sinks].mT).masked_fill(
        distance[:, :num_sinks] < window, float("-inf")
    )
    wanted = attention(torch.cat([stationary, local], 1), torch.cat([v[:num_sinks], v]))
    assert_same(LmInfinite(num_sinks=num_sinks, window_size=window), wanted, q, k, v)

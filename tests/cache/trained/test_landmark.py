"""Landmarks: their softmax by the paper's formula, both ways to compute it, and what is read of a long text."""

import pytest
import torch
from torch.nn.functional import pad

from longreach.cache.trained.landmark import Landmark
from longreach.core.inserted import InsertedRun
from longreach.engine._choice import chosen_parts
from longreach.engine._fused import Merge, attend

SIZE, BLOCKS, HEADS, KV_HEADS, WIDTH = 5, 7, 4, 2, 8


def run(*, inserted=False, turn=lambda x, positions: x, seed=0):
    """A text of seven blocks, in float64, and the logits of its queries with tokens and with landmarks."""
    generator = torch.Generator().manual_seed(seed)

    def random(heads, count):
        return torch.randn(1, heads, count, WIDTH, generator=generator, dtype=torch.float64)

    tokens = SIZE * BLOCKS
    q, keys, values = random(HEADS, BLOCKS if inserted else tokens), random(KV_HEADS, tokens), random(KV_HEADS, tokens)
    return InsertedRun(
        q=q, inserted=inserted, index=torch.arange(q.shape[2]), keys=keys, values=values, oldest=0, own_keys=random(KV_HEADS, BLOCKS),
        own_values=random(KV_HEADS, BLOCKS), scale=WIDTH**-0.5, softcap=None, turn=turn,
        attend=lambda q, k, v, mask: attend(q, k, v, scale=WIDTH**-0.5, mask=mask),
        attend_chunks=lambda q, k, v, chosen: chosen_parts(q, k, v, chosen, WIDTH**-0.5, None),
    )  # fmt: skip


def merged(policy, run):
    merge, count = Merge(), run.q.shape[2]
    if not run.inserted:  # the engine has a band for that
        index = torch.arange(count)
        own = (index[:, None] // policy.block_size == index // policy.block_size) & (index <= index[:, None])
        merge.add(*run.attend(run.q, run.keys, run.values, own[None, None]), slice(0, count), count)
    for rows, out, lse in policy.pieces(run):
        merge.add(out, lse, rows, count)
    return merge.result(None, run.q)


def by_the_formula(run):
    """Algorithm and equations 1 to 3 of the paper, over the text with its landmarks: softmax by groups, and the product of two of them."""
    repeats = HEADS // KV_HEADS
    keys, landmarks, values = (x.repeat_interleave(repeats, 1)[0] for x in (run.keys, run.own_keys, run.values))
    order = [(block, place) for block in range(BLOCKS) for place in range(SIZE + 1)]
    outs = []
    for number in range(run.q.shape[2]):
        block, place = (number, SIZE) if run.inserted else divmod(number, SIZE)
        out = torch.zeros(HEADS, WIDTH, dtype=torch.float64)
        for head in range(HEADS):
            logit = {}
            for b, p in order:
                if (b, p) <= (block, place) and (b, p) != (block, SIZE):  # the own block's landmark is left out
                    key = landmarks[head, b] if p == SIZE else keys[head, b * SIZE + p]
                    logit[b, p] = float(run.q[0, head, number] @ key) * run.scale
            # Groups: each earlier block's tokens; and all earlier landmarks with the tokens of the query's own block.
            group = {spot: -1 if spot[1] == SIZE or spot[0] == block else spot[0] for spot in logit}
            total = dict.fromkeys(set(group.values()), 0.0)
            for spot, x in logit.items():
                total[group[spot]] += torch.tensor(x, dtype=torch.float64).exp()
            for (b, p), x in logit.items():
                softmax = torch.tensor(x, dtype=torch.float64).exp() / total[group[b, p]]
                if p < SIZE and b == block:
                    out[head] += softmax * values[head, b * SIZE + p]
                elif p < SIZE:
                    gate = torch.tensor(logit[b, SIZE], dtype=torch.float64).exp() / total[-1]
                    out[head] += softmax * gate * values[head, b * SIZE + p]
        outs.append(out)
    return torch.stack(outs, 1)[None]


@pytest.mark.parametrize("inserted", [False, True])
def test_it_is_the_papers_grouped_softmax(inserted):
    given = run(inserted=inserted)
    ours = merged(Landmark(block_size=SIZE, num_blocks=BLOCKS), given)
    assert torch.allclose(ours, by_the_formula(given), atol=1e-6)  # log-sum-exps are float32


def test_blocks_that_are_chosen_count_as_they_do_among_all():
    given = run(turn=lambda x, positions: x * (1 + 0.01 * positions[..., None] % 3))
    policy, block = Landmark(block_size=SIZE, num_blocks=4), torch.full((SIZE,), 4)
    place, rows = torch.arange(SIZE), slice(4 * SIZE, 5 * SIZE)  # the last queries that see all blocks
    raw = given.q[:, :, rows]
    q = given.turn(raw, block * policy.stride + place)
    landmarks = given.turn(given.own_keys, torch.arange(BLOCKS) * policy.stride + SIZE)
    for ours, wanted in zip(
        policy._chosen(given, q, raw, landmarks, block, place), policy._all(given, q, raw, landmarks, block, place), strict=True
    ):
        assert torch.allclose(ours.double(), wanted.double(), atol=1e-6)


def test_only_chosen_blocks_are_read():
    given, policy = run(), Landmark(block_size=SIZE, num_blocks=2)
    out = merged(policy, given)
    landmarks = given.own_keys.repeat_interleave(HEADS // KV_HEADS, 1)
    scores = (given.q[:, :, -1:] @ landmarks[:, :, : BLOCKS - 1].mT)[0, :, 0]
    for head, chosen in enumerate(scores.topk(2).indices.tolist()):
        for block in range(BLOCKS - 1):
            spoilt = given.values.clone()
            spoilt[:, head // (HEADS // KV_HEADS), block * SIZE : (block + 1) * SIZE] += 1
            changed = merged(policy, type(given)(**{**{name: getattr(given, name) for name in given.__slots__}, "values": spoilt}))
            assert bool((changed[0, head, -1] != out[0, head, -1]).any()) == (block in chosen)


def test_no_key_stands_farther_away_than_the_blocks_that_are_read():
    asked = []

    def turn(x, positions):
        asked.append(positions)
        return x

    policy = Landmark(block_size=SIZE, num_blocks=2)
    merged(policy, run(turn=turn))
    placed = next(positions for positions in asked if positions.ndim == 3)  # of queries [1, H, T * 2], each for one chosen block
    own = torch.arange(3 * SIZE, BLOCKS * SIZE)
    true = (own // SIZE * policy.stride + own % SIZE).repeat_interleave(2)
    assert bool((placed <= true).all())
    assert bool((placed >= own.repeat_interleave(2) % SIZE + policy.stride).all())
    reach, _ = policy.reference(torch.tensor(10_000), torch.arange(10_000))
    assert int(reach.max()) == 3 * policy.stride
    assert pad(reach.diff().clamp(min=0), (0, 1)).max() == 0  # nearer tokens never stand farther away

"""How keys are sorted, and what counts for how much, by arXiv:2310.05869."""

import torch

from longreach.attention.base import Vectors
from longreach.attention.sparse.hyper import Hyper
from longreach.core.bands import PROBE
from tests.attention.one_head import DIM, random_head, rotated


def counted(method, q, k, v):
    """How often each key counts for each query, [T, T]."""
    i, j = torch.arange(len(q))[:, None], torch.arange(len(k))[None]
    vectors = Vectors(layer=PROBE, q=q[None], k=k[None], v=v[None], scale=DIM**-0.5, prompt=len(q), rotated=rotated)
    return method.counted(i, j, vectors)[0]


def test_every_key_counts_once_on_average():
    q, k, v = random_head(32)
    found = [counted(Hyper(exact=8, block_size=2, num_samples=8, num_projections=2, seed=seed), q, k, v) for seed in range(400)]
    mean = torch.stack(found).mean(0)
    torch.testing.assert_close(mean, torch.ones(32, 32, dtype=mean.dtype).tril(), rtol=0, atol=0.3)
    assert found[0][-1].max() > 1
    assert not torch.equal(found[0], found[1])


def test_neighbours_in_the_order_differ_by_one_bit():
    method = Hyper(num_projections=4, seed=3)
    x = torch.randn(500, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions = torch.randn(DIM, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    signs = {}
    for place, bits in zip(method._hash(x).tolist(), (x @ directions > 0).tolist(), strict=True):
        assert signs.setdefault(place, bits) == bits, "one place for each hash"
    assert sorted(signs) == list(range(16))
    for place in range(15):
        assert sum(a != b for a, b in zip(signs[place], signs[place + 1], strict=True)) == 1


def test_a_query_sees_the_keys_that_point_where_it_does():
    """Keys in eight clusters; a query that points to one of them sees more of it than its share of a block."""
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(8, DIM, generator=generator, dtype=torch.float64)
    of = torch.randint(8, (256,), generator=generator)
    x = centres[of] + 0.1 * torch.randn(256, DIM, generator=generator, dtype=torch.float64)
    still = Vectors(layer=PROBE, q=x[None], k=x[None], v=x[None], scale=1.0, prompt=256, rotated=lambda x, positions: x)
    i, j = torch.arange(256)[:, None], torch.arange(256)[None]
    seen = Hyper(exact=128, block_size=32, num_samples=0, sink_blocks=0).counted(i, j, still)[0][128:, :128]
    assert seen.sum(1).tolist() == [32] * 128
    mine = (of[128:, None] == of[None, :128]).double()
    found = (seen * mine).sum(1) / mine.sum(1).clamp(max=32)
    assert found.mean() > 0.75, "a random block of 32 of 128 would see a quarter"


def test_stretches_double_with_the_distance():
    q, k, v = random_head(80)
    seen = counted(Hyper(exact=8, block_size=4, num_samples=0, num_projections=2, sink_blocks=0), q, k, v) > 0
    # Token 77 stands in the stretch from 72 on; behind it lies one of 8 (64 to 71, of which a block is seen) and one of 64 (0 to 63).
    assert bool(seen[77, 72:78].all())
    assert int(seen[77, 64:72].sum()) == 4
    assert int(seen[77, :64].sum()) == 4


def test_first_blocks_are_seen_by_all_and_sampled_by_none():
    q, k, v = random_head(64)
    seen = counted(Hyper(exact=16, block_size=4, num_samples=5, num_projections=2, sink_blocks=2), q, k, v)
    assert bool((seen[7:, :8] == 1).all()), "once, whatever the hash"
    assert set(seen[16:32, 8:16].unique().tolist()) <= {0.0, 1.0, *(8 / 5 * times for times in range(1, 6))}, (
        "a sample stands for what is left"
    )

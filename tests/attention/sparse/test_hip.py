"""What the search of arXiv:2406.09827 finds, by hand, and how many keys are read."""

import pytest
import torch

from longreach.attention.base import Vectors
from longreach.attention.sparse.hip import Hip
from longreach.core.bands import PROBE
from longreach.decoding.reading import new_cache, prefill
from longreach.engine.apply import apply
from longreach.testing.models import tiny_model
from tests.attention.one_head import DIM, random_head, rotated

# Two branches of eight blocks: 0 and 4 begin them. Halves are judged by their first blocks, 0, 2, 4, 6: the second branch has the best two.
# Of its blocks 4 to 7 the best are 7 and 4. Block 1 is best of all, and lies behind the worst.
SCORES = [0.0, 9.0, 1.0, 8.0, 5.0, 2.0, 3.0, 7.0]


def test_branches_are_judged_by_their_first_block():
    method = Hip(budget=2, query_block=1, key_block=1, refresh=1)
    assert sorted(method._searched(torch.tensor(SCORES), 8)) == [4, 7]
    q, keys = torch.ones(1, 1, 1, 1), torch.tensor(SCORES).view(1, 1, 8, 1, 1)
    found, there = method._search(q, keys, torch.tensor([8]))
    assert sorted(found.flatten().tolist()) == [4, 7]
    assert bool(there.all())


def test_a_block_is_judged_by_its_best_key():
    keys = torch.tensor([[0.0, 1.0], [0.0, 9.0], [-3.0, 3.0], [0.0, 0.0]])
    q = torch.ones(1, 1, 1, 1)
    method = Hip(budget=2, query_block=2, key_block=2, refresh=1)
    found, _ = method._search(q, keys.view(1, 1, 4, 2, 1), torch.tensor([4]))
    assert found.flatten().tolist() == [2], "of blocks 0 and 2, with 1 and 3, the second branch is the better, and of 2 and 3 the former"


@pytest.mark.parametrize(
    ("prompt", "query", "refresh", "choices"),
    [(64, 40, 4, 1), (64, 61, 4, 4), (64, 66, 1, 4), (64, 66, 2, 2), (64, 66, 4, 1), (8, 40, 2, 2), (66, 66, 4, 3)],
)
def test_queries_read_a_budget_and_their_neighbours(prompt, query, refresh, choices):
    """Queries of one block of the prompt see the same, in its last block each has a choice of its own, and then so many share one."""
    q, k, v = random_head(80)
    method = Hip(budget=12, query_block=4, key_block=2, refresh=refresh, near=1, dense_layers=0)
    i, j = torch.arange(80)[:, None], torch.arange(80)[None]
    vectors = Vectors(layer=PROBE, q=q[None], k=k[None], v=v[None], scale=DIM**-0.5, prompt=prompt, rotated=rotated)
    visible = method.reference_of(i, j, vectors)[1][0]
    start = query // 4 * 4
    far = visible[start : start + 4, : start - 4]
    assert far.sum(1).tolist() == [12] * 4
    assert bool(visible[query, start - 4 : query + 1].all())
    assert len({tuple(row.tolist()) for row in far}) == choices


@torch.no_grad()
def test_behind_the_prompt_a_choice_is_made_once_for_queries_that_share_it(monkeypatch):
    searched, search = [], Hip._search
    monkeypatch.setattr(Hip, "_search", lambda self, *given: searched.append(0) or search(self, *given))
    model = tiny_model("llama")
    with apply(model, "hip:budget=8,query_block=8,refresh=4,near=1,dense_layers=0", warn=False):
        cache = new_cache(model)
        prefill(model, torch.arange(48)[None], cache=cache)
        searched.clear()
        for token in range(48, 60):
            prefill(model, torch.tensor([[token]]), cache=cache)
    assert len(searched) == 3 * len(model.model.layers)

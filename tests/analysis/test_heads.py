"""Positional heads: one made by hand is found first, and contributions are those of a loop over all pairs."""

import math

import numpy as np
import pytest
import torch

from longreach.analysis.ablation import ablate
from longreach.analysis.heads import head_scores, random_heads, spearman
from longreach.analysis.single_heads import observed
from longreach.core.errors import InputError, UnsupportedError
from longreach.engine.apply import apply
from longreach.engine.examine import examine
from longreach.evaluation.measure import parse_tasks
from longreach.evaluation.rows import Rows
from longreach.testing.models import random_ids, tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

LENGTH = 96


def texts(count=2, length=LENGTH):
    return [ids.numpy().astype(np.int32) for ids in random_ids(count, length)]


def with_positional_head(layer, head, theta=20.0):
    """A model with a head that attends by position alone: its constant queries and keys agree most half a text apart, by its slow pairs
    most of all; even the slowest turns once in the text.
    """
    model = tiny_model(
        "qwen2", num_key_value_heads=4, rope_parameters={"rope_type": "default", "rope_theta": theta}, max_position_embeddings=LENGTH
    )
    attention = model.model.layers[layer].self_attn
    own, pairs = slice(16 * head, 16 * (head + 1)), 8
    turn = LENGTH / 2 * theta ** (-torch.arange(pairs) / pairs)
    size = torch.linspace(0.2, 8.0, pairs).sqrt()
    with torch.no_grad():
        for projection, angle in ((attention.q_proj, torch.zeros(pairs)), (attention.k_proj, turn)):
            projection.weight[own] = 0
            projection.bias[own] = torch.cat([size * angle.cos(), size * angle.sin()])
    return model


def test_a_head_that_attends_by_position_is_found_first():
    for layer, head in ((1, 2), (0, 0)):
        found = head_scores(with_positional_head(layer, head), texts(), LENGTH)
        assert (found[0].layer, found[0].head) == (layer, head)
        assert found[0].score > 0.95 > found[1].score
        assert found[0].far > 0.5
        assert len(found) == 12


@pytest.mark.parametrize("family", ["llama", "glm4", "phi3"])  # pairs by halves, interleaved, of a part of the head
def test_scores_are_those_of_a_loop_over_all_pairs(family):
    model, ids = tiny_model(family), texts(1, 40)
    attentions, seen = examine(model, 128), {}
    with torch.no_grad(), observed(model, attentions, lambda layer, q, k, scale: seen.setdefault(layer, (q[0], k[0], scale))):
        model(torch.from_numpy(ids[0])[None].long())
    for each in head_scores(model, ids, 128):
        q, k, scale = seen[each.layer]
        k = k.repeat_interleave(len(q) // len(k), 0)
        score, far = looped(q[each.head].double(), k[each.head].double(), scale, attentions[each.layer].rotation.layout, family)
        assert each.score == pytest.approx(score, abs=0.03)  # equal but for ranks that rounding swaps
        assert each.far == pytest.approx(far, abs=1e-4)


def looped(q, k, scale, layout, family):
    """The definition in the module's docstring, of one head and a text of 40 tokens."""
    half = {"llama": 8, "glm4": 4, "phi3": 4}[family]
    pairs = [(n, n + half) if layout == "half" else (2 * n, 2 * n + 1) for n in range(half)]
    contributions, far_share, queries = [0.0] * half, 0.0, range(20, 40)
    for i in queries:
        weights = torch.stack([q[i] @ k[j] * scale for j in range(i + 1)]).softmax(0)
        far = [j for j in range(4, i + 1) if i - j >= 10]
        far_share += float(sum(weights[j] for j in far)) / len(queries)
        for n, (a, b) in enumerate(pairs):
            added = [float(q[i, a] * k[j, a] + q[i, b] * k[j, b]) * scale for j in range(i + 1)]
            contributions[n] += sum(float(weights[j]) * (added[j] - sum(added) / (i + 1)) for j in far)
    return float(np.corrcoef(np.arange(half), np.argsort(np.argsort(contributions)))[0, 1]), far_share


def test_ranks():
    assert spearman(torch.tensor([1.0, 5.0, 6.0, 100.0])) == pytest.approx(1.0)
    assert spearman(torch.tensor([3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    assert spearman(torch.tensor([2.0, 2.0, 2.0])) == 0.0
    assert spearman(torch.tensor([1.0, 1.0, 2.0])) == pytest.approx(math.sqrt(3) / 2)


def test_what_has_no_scores_is_refused():
    with pytest.raises(InputError, match="at least 32 tokens, not 20"):
        head_scores(tiny_model(), texts(1, 20), 128)
    with pytest.raises(UnsupportedError, match="no layer has rotary positions over the whole text"):
        head_scores(tiny_model("mistral"), texts(1, 40), 128)
    model = tiny_model()
    with apply(model, "log_n"), pytest.raises(UnsupportedError, match="log_n cannot be used .* choose a positions method"):
        head_scores(model, texts(1, 40), 128)
    with pytest.raises(InputError, match="there are 2 heads beside"):
        random_heads([(0, 0), (0, 1)], 3, 0)


def test_random_heads_hang_on_the_seed():
    heads = [(layer, head) for layer in range(4) for head in range(8)]
    first, again, other = (random_heads(heads, 5, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 5


def test_an_ablation_measures_the_whole_and_what_is_left(tmp_path):
    model = tiny_model(vocab_size=VOCABULARY)
    others = [(layer, head) for layer in (0, 2) for head in range(4)]
    rows = Rows(tmp_path / "rows.jsonl")
    settings = {
        "name": "tiny", "to": 128, "trained_window": 128, "tasks": parse_tasks("loss+needle"), "draws": 2, "seed": 3, "rows": rows,
        "text": real_text(), "windows": 2, "samples": 1, "depths": [0.0, 1.0],
    }  # fmt: skip
    found = ablate(model, tokenizer(), [(1, 0), (1, 3)], others, **settings)
    assert list(found.draws) == [3, 4]
    assert [(cell.task, cell.metric, cell.start, cell.length) for cell in found.cells] == [
        ("loss", "loss", 0, 64), ("loss", "loss", 64, 128), ("needle", "likelihood", None, 128), ("needle", "generation", None, 128)
    ]  # fmt: skip
    assert {row.settings["ablated"] for row in rows} == {"", "1.0 1.3", *(" ".join(f"{a}.{b}" for a, b in h) for h in found.draws.values())}
    assert len(rows) == 4 * (2 * 2 + 2 * 2)
    loss = found.cells[0]
    mean = {name: np.mean([row.score for row in rows if row.length == 64 and row.settings["ablated"] == name]) for name in ("", "1.0 1.3")}
    assert loss.plain == pytest.approx(mean[""])
    assert loss.chosen.mean == pytest.approx(mean["1.0 1.3"] - mean[""])
    assert loss.chosen.mean != 0
    count = len(rows)
    assert ablate(model, tokenizer(), [(1, 0), (1, 3)], others, **settings).cells == found.cells
    assert len(rows) == count  # nothing was measured twice
    passkeys = {**settings, "tasks": parse_tasks("passkey"), "to": 256, "text": None, "windows": None, "samples": None, "depths": [0.0]}
    answers = ablate(model, tokenizer(), [(1, 0), (1, 3)], others, **passkeys).rows
    asked = [
        [row.settings["input"] for row in answers if row.settings["ablated"] == name]
        for name in {row.settings["ablated"] for row in answers}
    ]
    assert len(asked) == 4
    assert all(len(inputs) == 2 * 10 and inputs == asked[0] for inputs in asked), "no answer ends what is paired with others"
    with pytest.raises(InputError, match="draws=1 must be at least 2"):
        ablate(model, tokenizer(), [(1, 0)], others, **{**settings, "draws": 1})

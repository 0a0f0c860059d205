"""What every earlier token adds to a prediction, beside the definition: each context read by itself."""

import numpy as np
import pytest
import torch

from longreach.analysis.context_probe import probe_contexts
from longreach.core.errors import InputError, LongreachError
from longreach.engine.apply import apply
from longreach.testing.models import random_ids, tiny_model

TEXT, LONGEST = 14, 6


def naive(model, ids, longest, prefix):
    """[C + 1, T] twice: one forward pass for each token and each context."""
    losses, divergences = (np.full((longest + 1, len(ids)), np.nan) for _ in range(2))
    with torch.no_grad():
        for target in range(len(ids)):
            logs = {}
            for length in range(min(longest, target) + 1):
                context = [*prefix, *ids[target - length : target].tolist()]
                if context:
                    logs[length] = model(torch.tensor([context])).logits[0, -1].double().log_softmax(-1)
            for length, log in logs.items():
                best = logs[max(logs)]
                losses[length, target] = -float(log[ids[target]])
                divergences[length, target] = float((best.exp() * (best - log)).sum())
    return losses, divergences


@pytest.mark.parametrize("prefix", [[], [3], [3, 4]])
@pytest.mark.parametrize(("longest", "chunk_size"), [(LONGEST, 512), (LONGEST, 2), (40, 512)])
def test_as_defined(prefix, longest, chunk_size):
    model, ids = tiny_model(), random_ids(1, TEXT)[0]
    found = probe_contexts(model, ids, longest=longest, prefix=prefix, chunk_size=chunk_size)
    losses, divergences = naive(model, ids, min(longest, TEXT - 1), prefix)
    np.testing.assert_allclose(found.losses, losses, atol=1e-4)
    np.testing.assert_allclose(found.divergences, divergences, atol=1e-4)


def test_importances_sum_to_what_the_whole_context_is_worth():
    model, ids = tiny_model(), random_ids(1, TEXT)[0]
    found = probe_contexts(model, ids, longest=LONGEST, prefix=[3])
    falls = found.importances
    np.testing.assert_allclose(np.nansum(falls, 0), found.divergences[0], atol=1e-9)
    assert np.isnan(falls[0]).all(), "nothing comes in at no distance"
    assert len(found.mean_losses) == LONGEST + 1
    assert found.mean_losses[2] == pytest.approx(found.losses[2, LONGEST:].mean())


def test_what_a_method_hides_has_no_importance():
    model, ids = tiny_model(), random_ids(1, TEXT)[0]
    with apply(model, "sinks:num_sinks=0,window_size=3"):
        found = probe_contexts(model, ids, longest=LONGEST)
    assert np.nanmax(np.abs(found.importances[4:])) > 1e-4, "layers pass on what one of them does not see"
    one = tiny_model(num_hidden_layers=1)
    with apply(one, "sinks:num_sinks=0,window_size=3"):
        found = probe_contexts(one, ids, longest=LONGEST)
    assert np.nanmax(np.abs(found.importances[4:])) < 1e-9
    assert np.nanmax(np.abs(found.importances[3])) > 1e-4


def test_what_cannot_be_probed_is_refused():
    model = tiny_model()
    with pytest.raises(InputError, match="fewer than two tokens"):
        probe_contexts(model, random_ids(1, 1)[0], longest=3)
    with pytest.raises(InputError, match="longest=0 must be at least 1"):
        probe_contexts(model, random_ids(1, 5)[0], longest=0)
    model.lm_head.weight.data[2] = float("nan")
    with pytest.raises(LongreachError, match="not finite"):
        probe_contexts(model, random_ids(1, 5)[0], longest=3)

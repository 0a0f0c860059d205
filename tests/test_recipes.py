"""Every recipe for `longreach tune` gives a plan that fits a model, and is what its paper says."""

import pytest

from longreach.core import registry
from longreach.engine.rope_config import rope_of
from longreach.positions.base import Rope
from longreach.training.plan import plan
from tests.training.tuning import model

LLAMA2 = Rope(theta=1e4, dim=128, trained_window=4096)
LLAMA3 = Rope(theta=5e5, dim=128, trained_window=8192)


def recipe(name):
    return registry.module(name, "recipe").recipe


NAMES = [name for name in registry.names("recipe") if name != "nano_4k"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", [256, 100])
def test_every_recipe_fits_a_model(name, target):
    tiny = model()
    config = recipe(name)(rope_of(tiny.config), target)
    assert config.target == target
    assert plan(tiny, config).geometry.seq_len >= target


@pytest.mark.parametrize(
    ("name", "rope", "target", "base"),
    [
        ("prolong", LLAMA3, 32 * 1024, 8e6),  # trained at 64k
        ("llama2_long", LLAMA2, 32 * 1024, 5e5),
        ("llama3_80k", LLAMA3, 80 * 1024, 2e8),
        ("bootstrap", LLAMA3, 16 * 1024, 2e6),  # a doubling is four times the base
        ("bootstrap", LLAMA3, 64 * 1024, 3.2e7),  # three doublings
    ],
)
def test_the_base_is_the_papers(name, rope, target, base):
    from longreach.training.plan import trainable

    (method,) = trainable(recipe(name)(rope, target).method)
    assert method.rope_parameters(rope)["rope_theta"] == pytest.approx(base, rel=1e-3)


def test_the_bundled_model_is_tuned_on_sequences_of_its_window():
    tiny = model()
    config = recipe("nano_4k")(rope_of(tiny.config), 256)
    chosen = plan(tiny, config)
    assert (chosen.spec, chosen.sampler.spec) == ("self_extend:neighbours=16,group=6+log_n", "pose")
    assert chosen.geometry.seq_len == chosen.geometry.trained_window
    assert (config.steps * config.batch_size * 512, config.full) == (3_686_400, True)

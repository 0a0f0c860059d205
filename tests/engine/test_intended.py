import pytest

from longreach.engine.intended import intended_window
from tests.checkpoints.folders import tiny


@pytest.mark.parametrize(("family", "window"), [("llama", 128), ("llama_yarn", 128), ("gemma3", 128)])
def test_the_intended_window_of_a_config(family, window):
    assert intended_window(tiny(family)) == window


def test_the_intended_window_of_a_config_that_does_not_count_its_scaling():
    model = tiny("llama_yarn", max_position_embeddings=32)
    assert intended_window(model) == 4 * 32

import math

import numpy as np
import pytest
import torch

from longreach.core.errors import InputError
from longreach.training.gate import Gate, held_out_windows, short_loss
from tests.evaluation.samples import real_text, tokenizer
from tests.training.tuning import HELD_OUT, WINDOW, model


@pytest.mark.parametrize(
    ("after", "passed"), [(3.0, True), (4.0, True), (4.04, True), (4.0401, False), (math.nan, False), (math.inf, False)]
)
def test_one_percent_is_the_bar(after, passed):
    assert Gate(before=4.0, untrained=4.0, after=after).passed is passed


def test_the_loss_is_the_mean_over_every_predicted_token():
    plain = model()
    windows = held_out_windows(HELD_OUT, tokenizer(), WINDOW)
    assert len(windows) >= 16
    assert all(len(window) == WINDOW and window[0] == 0 for window in windows)
    losses = []
    with torch.no_grad():
        for window in windows:
            shares = plain(torch.from_numpy(window).long()[None]).logits[0].double().log_softmax(-1)
            losses += [-shares[i, token].item() for i, token in enumerate(window[1:])]
    assert short_loss(plain, windows) == pytest.approx(np.mean(losses), abs=1e-5)


def test_too_little_text_is_refused():
    with pytest.raises(InputError, match="too little held-out text: it has .* 2 windows of 64 do not fit; give a longer --text"):
        held_out_windows(real_text()[:100], tokenizer(), WINDOW)


@pytest.mark.parametrize(("window", "count"), [(64, 64), (1024, 32), (4096, 8), (8192, 4), (32768, 2)])
def test_long_windows_are_few(window, count):
    """Three looks at 64 windows of 8192 tokens took a 135M model hours on a CPU."""
    windows = held_out_windows(real_text() * 4, tokenizer(), window)
    assert [len(each) for each in windows] == [window] * count

import json
import shutil

import pytest
import torch

import longreach
from longreach.engine.weights import own_weights
from longreach.testing.models import VOCABULARY, tiny_model
from longreach.training.pretrain import PretrainConfig, pretrain

CONFIG = PretrainConfig(tokens=16 * 2 * 8, batch_size=2, seq_len=8, decay=0.25, save_every=0.0, log_every=2, compile=False)


def batch(step):
    return torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(step))


def run(folder, config=CONFIG, batch=batch):
    model = tiny_model(num_hidden_layers=1)
    pretrain(model, batch, config, folder, evaluate=lambda _: 1.0)
    return {name: value.clone() for name, value in model.state_dict().items()}


class Kill(BaseException):
    pass


def killed_at(step):
    def until(asked):
        if asked == step:
            raise Kill
        return batch(asked)

    return until


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run: its folder, and the weights that it ended with."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


@pytest.mark.parametrize("step", [1, 7, 13])
def test_a_killed_run_ends_where_an_undisturbed_one_does(tmp_path, whole, step):
    with pytest.raises(Kill):
        run(tmp_path, batch=killed_at(step))
    assert same(run(tmp_path), whole[1])


@pytest.mark.parametrize("steps", [20, 48])  # its decay begins before the shorter run's end, and long after
def test_a_longer_run_goes_on_from_before_the_decay(tmp_path, whole, steps):
    longer = PretrainConfig(tokens=steps * 2 * 8, batch_size=2, seq_len=8, decay=0.25, warmup=0.02, save_every=0.0, compile=False)
    shutil.copytree(whole[0], tmp_path / "lengthened")
    asked = []

    def watched(step):
        asked.append(step)
        return batch(step)

    lengthened = run(tmp_path / "lengthened", longer, watched)
    assert asked[0] == CONFIG.decay_start
    # Before the decay the rate is the same in both (the warm-up is one step), so the longer run alone ends there, too.
    assert same(lengthened, run(tmp_path / "longer", longer))


def test_a_finished_run_does_nothing(whole):
    folder, first = whole
    assert same(first, run(folder, batch=killed_at(0)))


def test_the_rate_rises_holds_and_falls():
    rates = [PretrainConfig(tokens=1000, batch_size=1, seq_len=1, warmup=0.1, decay=0.2).rate(step) for step in range(1000)]
    assert rates[0] == 0.01
    assert rates[99:800] == [1.0] * 701
    assert rates[800:] == sorted(rates[800:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_the_log_has_a_row_every_few_steps(whole):
    rows = [json.loads(line) for line in (whole[0] / "loss.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(2, 17, 2))
    assert [row["tokens"] for row in rows] == [16 * row["step"] for row in rows]
    assert rows[-1]["valid_bits_per_byte"] == 1.0


def test_it_learns(tmp_path):
    config = PretrainConfig(tokens=60 * 2 * 8, batch_size=2, seq_len=8, log_every=1, compile=False)
    run(tmp_path, config, lambda step: batch(0))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "loss.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] / 4


def test_weights_that_follow_what_is_read_move_after_each_step(tmp_path):
    torch.manual_seed(0)
    model = longreach.equip(tiny_model(), "routing:num_clusters=3,window_size=4")
    before = {name: weight.clone() for name, weight in own_weights(model).items()}
    with longreach.apply(model, "routing:num_clusters=3,window_size=4"):
        pretrain(model, batch, CONFIG, tmp_path, evaluate=lambda _: 1.0)
        model(batch(0))  # in no training
    for name, weight in own_weights(model).items():
        assert torch.equal(weight, before[name]) == name.endswith(("sums", "counts")), name

import gc

import pytest
import torch

from longreach.checkpoints.checkpoint import load, save
from longreach.core.errors import InputError, UnsupportedError
from longreach.engine.apply import applied
from longreach.serving.profiles import Profiles, own_bytes
from longreach.testing.models import random_ids, tiny_biased
from tests.conversation.talks import talker
from tests.serving.served import job, run, scheduler

SPECS = ["sinks:window_size=64", "yarn:factor=4", "self_extend:neighbours=32,group=4"]


@pytest.fixture
def loaded():
    return talker()


def test_each_request_gets_the_smallest_window_that_covers_it(loaded):
    profiles = Profiles(*loaded, SPECS)
    assert [(each.method.partition(":")[0], each.window) for each in profiles.all] == [
        ("", 256),
        ("self_extend", 928),
        ("yarn", 1024),
        ("sinks", None),
    ]
    for tokens, method in ((1, ""), (256, ""), (257, "self_extend"), (929, "yarn"), (1025, "sinks"), (1 << 20, "sinks")):
        assert profiles.smallest(tokens).method.partition(":")[0] == method
    assert profiles.window is None
    assert profiles.trained_window == 256
    profiles.close()


def test_where_no_window_is_endless_some_requests_fit_nowhere(loaded):
    profiles = Profiles(*loaded, ["yarn"], target=1024)
    assert profiles.widest.method == "yarn:factor=4"
    assert profiles.smallest(1024) is profiles.widest
    assert profiles.smallest(1025) is None
    profiles.close()


def test_the_model_as_it_is_stays_so_bit_for_bit(loaded):
    ids = random_ids(1, 200)
    with torch.no_grad():
        before = loaded.model(ids).logits
        profiles = Profiles(*loaded, SPECS)
        for each in profiles.all:
            assert torch.equal(each.model(ids).logits, before) == (not each.method)
        assert applied(loaded.model) == ""
        twins = [each for each in profiles.all if each.method]
        profiles.close()
        for each in twins:  # without their methods they are the model again: nothing is lost in the copy
            assert torch.equal(each.model(ids).logits, before)


def test_profiles_share_all_weights_and_using_them_in_turn_takes_no_memory(loaded):
    profiles = Profiles(*loaded, SPECS)
    for each in profiles.all:
        assert own_bytes(each.model, loaded.model) < 1024  # frequencies
    scheduled = scheduler(loaded, profiles=profiles.all)

    def round_of_requests():
        for number, profile in enumerate(profiles.all):
            scheduled.submit(job(profile, random_ids(1, 40, seed=number)[0].tolist())[0])
        run(scheduled)
        gc.collect()
        return sum(each.untyped_storage().nbytes() for each in gc.get_objects() if type(each) is torch.Tensor)

    round_of_requests()
    before = round_of_requests()
    for _ in range(3):
        assert round_of_requests() == before
    profiles.close()


def test_a_checkpoint_that_keeps_a_method_is_served_under_it(loaded, tmp_path):
    save(*loaded, tmp_path / "kept", method="self_extend:neighbours=32,group=4", target=800)
    kept = load(tmp_path / "kept")
    (profile,) = Profiles(*kept).all
    assert (profile.method, profile.window) == ("self_extend:neighbours=32,group=4", 928)
    plain = load(tmp_path / "kept", apply_method=False)
    profiles = Profiles(*plain, ["linear:factor=2"])
    assert [(each.method, each.window) for each in profiles.all] == [("", 256), ("linear:factor=2", 512)]
    profiles.close()


def test_what_cannot_be_served_is_refused(loaded):
    with pytest.raises(InputError, match="is an encoder-decoder, and a server needs a causal language model"):
        Profiles(tiny_biased(), loaded.tokenizer)
    with pytest.raises(InputError, match="reads marks in prompts"):
        Profiles(*loaded, ["set_based"])
    with pytest.raises(UnsupportedError):
        Profiles(*loaded, ["yarn:factor=4", "stretch_positions:factor=4"])
    assert applied(loaded.model) == ""
    with pytest.raises(InputError, match="training mode"):
        Profiles(loaded.model.train(), loaded.tokenizer)

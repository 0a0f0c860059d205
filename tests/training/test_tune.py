import json

import pytest
import torch

import longreach
from longreach.core.errors import InputError, SpecError, UnsupportedError
from longreach.core.progress import Progress
from longreach.engine.among import set_texts
from longreach.engine.apply import applied, apply
from longreach.engine.weights import own_weights
from longreach.testing.models import random_ids
from longreach.training import tune as tuning
from longreach.training.gate import held_out_windows, short_loss
from longreach.training.plan import plan, under_the_first
from longreach.training.tune import check, method_of_run, tune
from tests.evaluation.samples import tokenizer
from tests.training.tuning import HELD_OUT, TARGET, TEXTS, WINDOW, config, model, run


@pytest.fixture(autouse=True)
def _precision_is_no_race(monkeypatch):
    """Which precision is faster is measured, and on a busy machine two runs may find otherwise."""
    monkeypatch.setattr(tuning, "_bf16_is_faster", lambda model: False)


class Kill(BaseException):
    pass


class Killer(Progress):
    """Stops the run in the midst of a step's end, as the user's Ctrl-C would."""

    def __init__(self, step):
        self.left = step

    def start(self, label, total):
        self.training = label == "tuning"

    def advance(self, tokens):
        self.left -= self.training
        if not self.left:
            raise Kill


def weights(of):
    return {name: value.clone() for name, value in of.state_dict().items()}


def rows(folder):
    return [{**json.loads(line), "seconds": 0} for line in (folder / "loss.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("full", [False, True])
def test_a_killed_run_ends_where_an_undisturbed_one_does(tmp_path, full):
    settings = {"full": full} if full else {"parts": ("norms",), "rank": 2}
    whole = run(tmp_path / "whole", **settings)
    killed = tmp_path / "killed"
    killed.mkdir()
    with pytest.raises(Kill):
        tune(model(), tokenizer(), TEXTS, config(**settings), killed, held_out=HELD_OUT, save_every=0.0, progress=Killer(3))
    (killed / "checkpoint-3").mkdir()  # as if the kill had come while it was written
    with (killed / "loss.jsonl").open("a") as file:
        file.write('{"step": 3, "tok')
    went_on = run(killed, **settings)
    assert (whole.resumed, went_on.resumed) == (0, 2)
    assert all(torch.equal(value, weights(whole.model)[name]) for name, value in weights(went_on.model).items())
    assert went_on.gate == whole.gate
    assert rows(killed) == rows(tmp_path / "whole")
    assert [row["step"] for row in rows(killed)] == [1, 2, 3, 4]
    assert (killed / "loss.png").read_bytes()[:4] == b"\x89PNG"
    # A finished run trains no more, and gives the same model.
    again = run(killed, **settings)
    assert again.resumed == 4
    assert all(torch.equal(value, weights(whole.model)[name]) for name, value in weights(again.model).items())
    with pytest.raises(InputError, match=r"killed holds a run with other settings \(seed=0\); give those to go on, delete it"):
        run(killed, seed=1, **settings)


def test_the_model_trains_at_skipping_positions_under_the_method(tmp_path):
    plain = model()
    stock = plain.model.rotary_emb.inv_freq.clone()
    seen = []

    def watch(module, args, kwargs):
        if kwargs.get("position_ids") is not None and torch.is_grad_enabled():
            seen.append((int(kwargs["position_ids"].max()), applied(plain), bool((module.rotary_emb.inv_freq < stock).any())))

    handle = plain.model.register_forward_pre_hook(watch, with_kwargs=True)
    tuned = run(tmp_path / "run", of=plain, mixture={"long": 1.0}, method="linear:factor=4", full=True)
    handle.remove()
    assert len(seen) == 4
    assert max(highest for highest, _, _ in seen) >= WINDOW
    assert all(method == "linear:factor=4" and scaled for _, method, scaled in seen)
    assert not applied(tuned.model)
    assert torch.equal(tuned.model.model.rotary_emb.inv_freq, stock)
    assert tuned.model.config.use_cache
    assert not tuned.model.training


@pytest.mark.parametrize("sampler", ["pose", "full_length"])
def test_a_policy_that_places_tokens_is_trained_under(tmp_path, sampler):
    tuned = run(tmp_path / "run", method="rerope:window_size=32+log_n", sampler=sampler, mixture={"long": 1.0}, full=True, steps=2)
    assert tuned.plan.spec == "rerope:window_size=32+log_n"
    before = weights(model())
    assert any(not torch.equal(value, before[name]) for name, value in weights(tuned.model).items())


@pytest.mark.parametrize("spec", ["head_temperature", "yarn:factor=4+ntk_attention", "nope+cable"])
def test_weights_of_methods_are_trained_alone(tmp_path, spec):
    plain = model()
    before = weights(plain)
    tuned = run(tmp_path / "run", of=plain, method=spec)
    own = own_weights(tuned.model)
    assert tuned.trained_parameters == sum(weight.numel() for weight in own.values()) > 0
    fresh = own_weights(longreach.equip(model(), spec))
    assert all(not torch.equal(weight, fresh[name]) for name, weight in own.items())
    assert all(torch.equal(value, weights(tuned.model)[name]) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in tuned.model.parameters())
    again = run(tmp_path / "run", method=spec)
    assert again.resumed == 4
    assert all(torch.equal(weight, own[name]) for name, weight in own_weights(again.model).items())
    folder = longreach.save(tuned.model, tokenizer(), tmp_path / "saved", method=tuned.plan.methods, target=TARGET)
    loaded, ids = longreach.load(folder).model, random_ids(1, 100)
    with longreach.apply(tuned.model, spec), torch.no_grad():
        wanted = tuned.model(ids).logits
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, wanted)


@pytest.mark.parametrize(
    ("spec", "alone"),
    [
        ("landmark:block_size=16,num_blocks=3", False),
        ("activation_beacon:window_size=32,ratio=8", True),
        ("extensible:chunk_size=32,ratio=8,layers=1", True),
    ],
)
def test_memories_of_inserted_tokens_are_trained_under_and_saved(tmp_path, spec, alone):
    plain = model()
    before = weights(plain)
    tuned = run(tmp_path / "run", of=plain, method=spec, sampler="full_length", mixture={"long": 1.0}, steps=2)
    own, fresh = own_weights(tuned.model), own_weights(longreach.equip(model(), spec))
    still = [name for name, weight in own.items() if torch.equal(weight, fresh[name])]
    # What beacons ask of the last layer goes into states that nobody reads.
    assert still == [name for name in own if name.startswith("model.layers.2.") and name.endswith(".query")]
    assert all(torch.equal(value, weights(tuned.model)[name]) for name, value in before.items()) == alone
    assert (tuned.trained_parameters == sum(weight.numel() for weight in own.values())) == alone
    folder = longreach.save(tuned.model, tokenizer(), tmp_path / "saved", method=tuned.plan.methods, target=TARGET)
    loaded, ids = longreach.load(folder).model, random_ids(1, 100)
    with longreach.apply(tuned.model, spec), torch.no_grad():
        wanted = tuned.model(ids).logits
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, wanted)
    with pytest.raises(InputError, match="goes by the whole text, and pose leaves parts of it out; choose full_length"):
        run(tmp_path / "other", method=spec, sampler="pose", mixture={"long": 1.0})


def test_weights_of_methods_that_are_not_applied_are_left_alone(tmp_path):
    plain = longreach.equip(model(), "cable")
    before = {name: weight.clone() for name, weight in own_weights(plain).items()}
    tuned = run(tmp_path / "adapters", of=plain)  # adapters, as for any model
    assert tuned.trained_parameters > sum(weight.numel() for weight in before.values())
    tuned = run(tmp_path / "temperatures", of=longreach.equip(model(), "cable"), method="head_temperature")
    assert tuned.trained_parameters == 3 * 4  # layers, heads
    assert all(torch.equal(own_weights(plain)[name], weight) for name, weight in before.items())


def test_weights_that_follow_what_is_read_move_beside_adapters(tmp_path):
    spec = "routing:num_clusters=3,window_size=8,decay=0.5"

    def equipped():
        torch.manual_seed(0)
        return longreach.equip(model(), spec)

    fresh = {name: weight.clone() for name, weight in own_weights(equipped()).items()}
    given = {"method": f"yarn:factor=4+{spec}", "sampler": "full_length", "mixture": {"long": 1.0}}
    tuned = run(tmp_path / "run", of=equipped(), **given)
    own = own_weights(tuned.model)
    assert 0 < tuned.trained_parameters < sum(weight.numel() for weight in tuned.model.parameters()) / 2
    for name, weight in own.items():
        assert torch.equal(weight, fresh[name]) == name.endswith(("sums", "counts")), "these are spent after every step"
    again = run(tmp_path / "run", of=equipped(), **given)
    assert again.resumed == 4
    assert all(torch.equal(weight, own[name]) for name, weight in own_weights(again.model).items())


def test_weights_of_methods_can_be_trained_with_all_others(tmp_path):
    plain = longreach.equip(model(), "cable")
    count = sum(parameter.numel() for parameter in plain.parameters())
    assert run(tmp_path / "run", of=plain, method="nope+cable", full=True).trained_parameters == count
    with pytest.raises(InputError, match="cable has weights of its own, and these are trained; adapters' targets and parts have no effect"):
        run(tmp_path / "other", method="nope+cable", parts=("norms",))


def test_mixed_precision_ends_with_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "_bf16_is_faster", lambda model: True)
    tuned, twin, ids = run(tmp_path / "run", full=True, steps=1), model(), random_ids(1, 32)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["bf16"] is True
    twin.load_state_dict(tuned.model.state_dict())
    with torch.no_grad():
        assert torch.equal(tuned.model(ids).logits, twin(ids).logits)
    with apply(twin, tuned.plan.methods):
        assert short_loss(twin, held_out_windows(HELD_OUT, tokenizer(), WINDOW)) == pytest.approx(tuned.gate.after, abs=1e-6)


def test_the_gate_trips_where_short_text_is_lost(tmp_path):
    tuned = run(tmp_path / "run", full=True, lr=0.3, steps=2)
    assert not tuned.gate.passed
    with torch.no_grad(), apply(tuned.model, tuned.plan.methods):
        assert tuned.model(random_ids(1, 8)).logits.isfinite().all()


def test_fractional_positions_train(tmp_path):
    tuned = run(tmp_path / "run", sampler="e2", steps=2)
    assert (tuned.plan.spec, tuned.plan.geometry.seq_len) == ("linear:factor=4", WINDOW)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"target": WINDOW}, InputError, "64 tokens are within the trained window of 64"),
        ({"method": "linear:factor=0.5"}, SpecError, "factor=0.5 must be at least 1"),
        ({"method": "log_n"}, InputError, "log_n leaves positions as they are; put a positions method before it"),
        ({"method": "sinks:window_size=8"}, InputError, "a method of the kind 'cache'; a model is tuned under a positions method"),
        ({"method": "dynamic_ntk:factor=2"}, InputError, "changes with the tokens seen"),
        ({"method": "linear:factor=2+ntk:factor=2"}, UnsupportedError, "two positions methods"),
        ({"method": "head_temperature", "sampler": "e2"}, InputError, "put linear before head_temperature"),
        (
            {"method": "gali:window_size=64,local_window=16,chunk_size=8"},
            InputError,
            "goes by the whole text, and pose leaves parts of it out",
        ),
        ({"method": "yarn:factor=4+longheads:chunk_size=8,num_chunks=4"}, InputError, "goes by the whole text, and pose leaves parts"),
        (
            {"method": "linear:factor=4+rerope:window_size=8", "sampler": "e2"},
            InputError,
            "counts whole tokens, and e2 puts tokens at broken",
        ),
        ({"method": "rerope:window_size=8", "sampler": "full_length"}, InputError, "texts of 64 tokens in sequences of 256 apart"),
        ({"sampler": "yarn:factor=2"}, InputError, "no sampler but a method of the kind 'positions'"),
        ({"sampler": "pos"}, SpecError, "unknown method 'pos'; did you mean pose"),
        ({"sampler": "e2", "method": "yarn:factor=4"}, InputError, "e2 needs a method that divides all positions alike"),
        ({"seq_len": 500}, InputError, "sequences of 500 tokens; give 2 to 256"),
        ({"train_to": 128}, InputError, "train_to=128 is below the target"),
        ({"mixture": {"books": 1}}, InputError, "unknown source 'books' in the mixture; known: long, short"),
        ({"mixture": {"long": 0}}, InputError, "one of them above it"),
        ({"steps": 0}, InputError, "steps=0 must be at least 1"),
        ({"batch_size": 3, "accumulate": 2}, InputError, "does not come apart"),
        ({"lr": -1.0}, InputError, "lr=-1 must be above 0"),
        ({"parts": ("heads",)}, InputError, "cannot train 'heads'"),
        ({"full": True, "parts": ("norms",)}, InputError, "no effect in full training"),
        ({"warmup": 2.0}, InputError, "warmup=2 must be a share"),
    ],
)
def test_what_does_not_fit_is_refused(changes, error, says):
    with pytest.raises(error, match=says):
        plan(model(), config(**changes))


def test_a_model_that_is_scaled_already_is_tuned_from_the_window_that_it_is_scaled_to():
    found = plan(model("llama_yarn"), config(target=512))
    assert (found.spec, found.geometry.trained_window) == ("yarn:factor=4", 128)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is no tuning run \(it holds letters.txt\)"):
        run(tmp_path)
    assert (tmp_path / "letters.txt").read_text() == "mine"


def test_what_tune_would_refuse_is_refused_before(tmp_path):
    rest = {"held_out": HELD_OUT}
    check(model(), tokenizer(), TEXTS, config(), tmp_path / "run", **rest)
    assert method_of_run(tmp_path / "run") is None
    run(tmp_path / "run", steps=1, method="linear:factor=4")
    assert method_of_run(tmp_path / "run") == "linear:factor=4"
    check(model(), tokenizer(), TEXTS, config(steps=1), tmp_path / "run", **rest)  # whatever the method
    for changes in ({"steps": 2}, {"steps": 1, "method": "ntk:factor=4"}):
        with pytest.raises(InputError, match="holds a run with other settings"):
            check(model(), tokenizer(), TEXTS, config(**changes), tmp_path / "run", **rest)
    with pytest.raises(InputError, match="too little held-out text"):
        check(model(), tokenizer(), TEXTS, config(), tmp_path / "new", held_out="a few words")


@pytest.mark.parametrize(
    ("specs", "sampler", "method"),
    [
        (["log_n", "dynamic_ntk:factor=4", "ntk:factor=4", "linear:factor=4"], "pose", "ntk:factor=4"),
        (["ntk:factor=4", "linear:factor=4"], "e2", "linear:factor=4"),
        (["linear:factor=4+log_n", "sinks:window_size=8"], "pose", ""),
        ([], "pose", ""),
    ],
)
def test_the_first_method_that_can_be_trained_under_is_taken(specs, sampler, method):
    assert under_the_first(model(), config(sampler=sampler), specs).method == method


def test_positions_may_be_trained_beyond_the_target():
    assert plan(model(), config(train_to=512)).geometry.target == 512
    assert plan(model(), config()).geometry.target == TARGET


def test_a_cache_that_shares_keys_is_trained_among_texts(tmp_path, monkeypatch):
    counts = []

    def note(model, texts):
        counts.append(texts)
        set_texts(model, texts)

    monkeypatch.setattr("longreach.training.among.set_texts", note)
    spec = "focused:window_size=64,layers=1"
    settings = {"sampler": "full_length", "mixture": {"long": 1.0}, "target": 128, "lr": 1e-2, "full": True, "batch_size": 8}
    alone = run(tmp_path / "alone", method=f"{spec},texts=1", **settings)
    among = run(tmp_path / "among", method=f"{spec},texts=16", steps=20, **{**settings, "batch_size": 16})
    assert counts == [1] * 4 + [2] * 18 + [16] * 2
    several = run(tmp_path / "several", method=f"{spec},texts=8", **settings)
    assert alone.plan.spec == f"{spec},texts=1"
    assert among.plan.spec == f"{spec},texts=16"
    ours, theirs = weights(several.model), weights(alone.model)
    assert any(not torch.equal(value, theirs[name]) for name, value in ours.items()), "other texts change what is learned"
    folder = longreach.save(several.model, tokenizer(), tmp_path / "saved", method=several.plan.methods, target=128)
    loaded, ids = longreach.load(folder).model, random_ids(2, 200)
    assert applied(loaded) == f"{spec},texts=8"
    with longreach.apply(several.model, f"{spec},texts=8"), torch.no_grad():
        assert torch.equal(loaded(ids).logits, several.model(ids).logits)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"method": "focused:window_size=64"}, "keeps a text as it goes on, and pose leaves parts of it out; choose full_length"),
        (
            {"method": "focused:window_size=64,texts=4", "sampler": "full_length", "batch_size": 8, "accumulate": 4},
            "trains 4 texts among each other, and a forward pass has 2; give a batch_size of at least 16, or fewer texts",
        ),
        ({"method": "focused:window_size=64", "sampler": "full_length"}, "cannot tell texts of 64 tokens in sequences of 256 apart"),
        ({"method": "sinks:window_size=64"}, "sinks:window_size=64 is a method of the kind 'cache'"),
        (
            {"method": "extensible:chunk_size=256", "sampler": "full_length", "mixture": {"long": 1.0}},
            "condenses 256 tokens at a time, and a text of 256 has none behind them; make it longer",
        ),
    ],
)
def test_caches_that_cannot_be_trained_under_are_refused(changes, why):
    with pytest.raises(InputError, match=why):
        plan(model(), config(**changes))


@pytest.mark.parametrize("full", [False, True])
def test_a_recurrence_is_trained_alone_or_with_the_model(tmp_path, full):
    plain = model()
    before = weights(plain)
    settings = {"sampler": "full_length", "mixture": {"long": 1.0}, "method": "recurrent_window:window_size=64", "full": full}
    tuned = run(tmp_path / "run", of=plain, **settings)
    fresh, own = own_weights(longreach.equip(model(), "recurrent_window:window_size=64")), own_weights(tuned.model)
    assert not torch.equal(own[name := next(name for name in own if name.endswith("third"))], fresh[name])
    after = weights(tuned.model)
    assert all(torch.equal(value, after[name]) for name, value in before.items()) != full

import copy
import json

import pytest
import torch

import longreach
from longreach.checkpoints.checkpoint import load, save
from longreach.checkpoints.export import verify_export
from longreach.checkpoints.record import read_record
from longreach.core.errors import CheckpointError, InputError, SpecError, UnsupportedError
from longreach.engine.apply import apply
from tests.checkpoints.folders import byte_tokenizer, edit, logits, tiny

# methods in longreach.json


def test_a_method_is_applied_for_good_when_loaded(folder, tmp_path):
    spec = "self_extend:neighbours=32,group=8"
    model, tokenizer = load(folder)
    save(model, tokenizer, tmp_path / "out", method=spec, target=512)
    with apply(model, spec):
        expected = logits(model)
    assert not torch.allclose(expected, logits(model), atol=1e-3)
    again, itstokenizer = load(tmp_path / "out")
    assert torch.equal(logits(again), expected)
    assert itstokenizer.model_max_length == 512
    again.longreach_undo.close()
    assert torch.equal(logits(again), logits(model))
    plain = load(tmp_path / "out", apply_method=False).model
    assert torch.equal(logits(plain), logits(model))


def test_a_copy_has_the_method_and_loses_it_alone(folder, tmp_path):
    model, tokenizer = load(folder)
    save(model, tokenizer, tmp_path / "out", method="rerope:window_size=32", target=512)
    again = load(tmp_path / "out").model
    expected = logits(again)
    twin = copy.deepcopy(again)
    assert torch.equal(logits(twin), expected)
    again.longreach_undo.close()
    assert torch.equal(logits(again), logits(model))
    assert torch.equal(logits(twin), expected)
    twin.longreach_undo.close()
    assert torch.equal(logits(twin), logits(model))


def test_weights_are_as_readable_as_the_config(folder, tmp_path):
    save(*load(folder), tmp_path / "out")
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]


def test_other_methods_leave_weights_and_config_alone(folder, tmp_path):
    model, tokenizer = load(folder)
    save(model, tokenizer, tmp_path / "out", method="yarn:factor=4+log_n", target=512)
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["model_max_length"] == 128
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        assert (tmp_path / "out" / file).read_bytes() == (folder / file).read_bytes(), file
    record = read_record(tmp_path / "out")
    assert (record.method, record.exported, record.trained_window, record.target) == ("yarn:factor=4+log_n", False, 128, 512)


@pytest.mark.parametrize("tied", [False, True])
def test_weights_are_saved_as_they_were_stored(tmp_path, tied):
    small = tiny(tie_word_embeddings=tied).to(torch.bfloat16)
    small.save_pretrained(tmp_path / "small")
    byte_tokenizer().save_pretrained(tmp_path / "small")
    model, tokenizer = load(tmp_path / "small")
    assert model.dtype == torch.float32
    save(model, tokenizer, tmp_path / "out", method="log_n", target=128)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "small" / file).read_bytes(), file
    save(model, tokenizer, tmp_path / "ntk", method="ntk:factor=2", target=256)
    assert (tmp_path / "ntk" / "model.safetensors").read_bytes() == (tmp_path / "small" / "model.safetensors").read_bytes()
    assert load(tmp_path / "ntk", dtype="auto").model.dtype == torch.bfloat16
    with torch.no_grad():
        model.model.norm.weight += 1e-5  # training goes on in float32, and nothing of it may be lost
    save(model, tokenizer, tmp_path / "trained")
    assert torch.equal(load(tmp_path / "trained", dtype="auto").model.model.norm.weight, model.model.norm.weight)


def test_a_loaded_method_is_kept_when_saved_again(folder, tmp_path):
    spec = "yarn:factor=4+self_extend:neighbours=32,group=8"
    save(*load(folder), tmp_path / "one", method=spec, target=512)
    model, tokenizer = load(tmp_path / "one")
    before = logits(model)
    save(model, tokenizer, tmp_path / "two")
    assert torch.equal(logits(model), before), "saving leaves the method on the model"
    for file in ("config.json", "longreach.json", "model.safetensors", "tokenizer_config.json"):
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes(), file
    save(model, tokenizer, tmp_path / "three", target=256)
    assert (read_record(tmp_path / "three").method, read_record(tmp_path / "three").target) == (spec, 256)
    save(model, tokenizer, tmp_path / "four", method="")
    assert read_record(tmp_path / "four").method is None
    assert torch.equal(logits(load(tmp_path / "four").model), logits(tiny()))


def test_an_export_is_kept_when_saved_again(folder, tmp_path):
    save(*load(folder), tmp_path / "one", method="ntk:factor=4", target=512)
    save(*load(tmp_path / "one"), tmp_path / "two")
    for file in ("config.json", "longreach.json", "model.safetensors", "tokenizer_config.json"):
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes(), file


def test_a_method_applied_by_hand_is_not_saved_by_accident(folder, tmp_path):
    model, tokenizer = load(folder)
    with apply(model, "ntk:factor=4"), pytest.raises(InputError, match=r"ntk:factor=4 is applied to the model; leave it first"):
        save(model, tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2, "longreach": "9.0"}, r"has format 2 \(longreach 9.0\) and this is longreach .*, which reads format 1"),
        ({"format": None}, "has format None"),
        ({"method": "no_such_method:a=1"}, "asks for no_such_method:a=1, which longreach .* cannot apply: unknown method"),
        ({"method": 3}, "is damaged: method=3"),
        ({"exported": "no"}, "is damaged: exported='no'"),
        ({"target": None}, "is damaged: .*target=None"),
    ],
)
def test_records_that_cannot_be_read(folder, tmp_path, changes, says):
    save(*load(folder), tmp_path / "out", method="self_extend:neighbours=32,group=8", target=512)
    edit(tmp_path / "out" / "longreach.json", **changes)
    with pytest.raises(CheckpointError, match=says):
        load(tmp_path / "out")


# what cannot be saved


def test_targets_are_checked(folder, tmp_path):
    model, tokenizer = load(folder)
    with pytest.raises(InputError, match=r"ntk:factor=4 is to be saved without a target"):
        save(model, tokenizer, tmp_path / "out", method="ntk:factor=4")
    with pytest.raises(InputError, match=r"target=64 is below the 128 tokens that the model was trained on"):
        save(model, tokenizer, tmp_path / "out", method="ntk:factor=4", target=64)
    with pytest.raises(SpecError, match=r"unknown method"):
        save(model, tokenizer, tmp_path / "out", method="netk:factor=4", target=512)
    assert not any(path.name != "base" for path in tmp_path.iterdir())


def test_methods_that_cannot_work_are_refused_when_saved(folder, tmp_path):
    model, tokenizer = load(folder)
    with pytest.raises(UnsupportedError, match=r"keep one of them"):
        save(model, tokenizer, tmp_path / "out", method="linear:factor=4+ntk:factor=4", target=512)
    with pytest.raises(UnsupportedError, match=r"linear:factor=4 cannot be used with resonance: .*; put resonance behind it"):
        save(model, tokenizer, tmp_path / "out", method="resonance+linear:factor=4", target=512)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spec", ["yarn:factor=4", "ntk:factor=4"])
def test_an_export_does_not_reach_farther_without_another_method(folder, tmp_path, spec):
    save(*load(folder), tmp_path / "out", method=spec, target=512)
    model, tokenizer = load(tmp_path / "out")
    for again in ({"method": ""}, {}):
        with pytest.raises(UnsupportedError, match=rf"scaled already \({spec}\), and that says how far; give a method"):
            save(model, tokenizer, tmp_path / "more", target=1024, **again)
    assert read_record(save(model, tokenizer, tmp_path / "more", target=1024, method="ntk:factor=2")).trained_window == 512


def test_without_a_method_the_target_is_how_far_the_model_was_trained(folder, tmp_path):
    model, tokenizer = load(folder)
    save(model, tokenizer, tmp_path / "out", target=1024)
    again, itstokenizer = load(tmp_path / "out")
    assert again.config.max_position_embeddings == itstokenizer.model_max_length == 1024
    assert again.config.rope_parameters == model.config.rope_parameters
    assert model.config.max_position_embeddings == 128
    save(model, tokenizer, tmp_path / "same")
    assert (tmp_path / "same" / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_only_transformers_models_are_saved(tmp_path):
    with pytest.raises(InputError, match=r"Linear is not a transformers model; merge adapters first"):
        save(torch.nn.Linear(1, 1), byte_tokenizer(), tmp_path / "out")


def test_foreign_folders_are_never_replaced(folder, tmp_path):
    model, tokenizer = load(folder)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(InputError, match=r"exists and is not a longreach checkpoint; choose another folder"):
        save(model, tokenizer, folder)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"exists and is not a longreach checkpoint"):
        save(model, tokenizer, tmp_path / "file")
    assert sorted(path.name for path in folder.iterdir()) == before
    (tmp_path / "empty").mkdir()
    assert save(model, tokenizer, tmp_path / "empty") == tmp_path / "empty"
    assert torch.equal(logits(load(tmp_path / "empty").model), logits(model))


# exports


@pytest.mark.parametrize(
    ("spec", "family"),
    [
        ("yarn:factor=8,beta_fast=16,attention_factor=1", "llama"),
        ("yarn:factor=4", "gemma3"),
        ("ntk:factor=4", "phi3"),
        ("giraffe_truncated", "llama"),
        ("yarn:factor=4+resonance", "phi3"),
        ("linear:factor=4+giraffe_power:power=0.5+resonance", "llama"),
    ],
)
@pytest.mark.usefixtures("warm_reader")
def test_exports_mean_the_same_without_longreach(spec, family, tmp_path):
    model, tokenizer = tiny(family), byte_tokenizer()
    save(model, tokenizer, tmp_path / "out", method=spec, target=512)
    assert verify_export(tmp_path / "out") <= 1e-4
    exported, itstokenizer = load(tmp_path / "out")
    assert exported.config.max_position_embeddings == itstokenizer.model_max_length == 512
    assert model.config.max_position_embeddings == 128
    assert tokenizer.model_max_length == 128
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), exported.state_dict().values(), strict=True))
    with apply(model, spec):
        expected = logits(model)
    assert (logits(exported) - expected).abs().max() < 1e-4
    assert (logits(model) - expected).abs().max() > 0.1, "the method is felt"


def test_exports_are_checked_in_a_process_of_their_own(folder, tmp_path):
    save(*load(folder), tmp_path / "out", method="yarn:factor=4", target=512)
    assert verify_export(tmp_path / "out") <= 1e-4


def test_an_automatic_factor_is_saved_as_a_number(folder, tmp_path):
    model, tokenizer = load(folder)
    save(model, tokenizer, tmp_path / "out", method="yarn:factor=auto+resonance", target=512)
    assert read_record(tmp_path / "out").method == "yarn:factor=4+resonance"
    with apply(model, "yarn:factor=auto+resonance", target=512):
        wanted = logits(model)
    assert (logits(load(tmp_path / "out").model) - wanted).abs().max() < 1e-4
    for attempt in (lambda: save(model, tokenizer, tmp_path / "more", method="yarn:factor=auto"), lambda: enter(model, "yarn:factor=auto")):
        with pytest.raises(SpecError, match="factor=auto needs to know the length to reach; give a target"):
            attempt()


def enter(model, spec):
    with apply(model, spec):
        pass


def test_only_the_full_layers_of_a_nested_config_change(tmp_path):
    model = tiny("gemma3")
    before = model.config.rope_parameters
    save(model, byte_tokenizer(), tmp_path / "out", method="yarn:factor=4", target=512)
    after = json.loads((tmp_path / "out" / "config.json").read_text())["rope_parameters"]
    assert after["sliding_attention"] == before["sliding_attention"]
    assert after["full_attention"]["rope_type"] == "yarn"
    assert after["full_attention"]["original_max_position_embeddings"] == 128


def test_rope_types_that_a_family_does_not_take_go_into_longreach_json(tmp_path):
    model = tiny("phi3")
    save(model, byte_tokenizer(), tmp_path / "out", method="yarn:factor=4", target=512)
    assert not read_record(tmp_path / "out").exported
    with apply(model, "yarn:factor=4"):
        assert torch.equal(logits(load(tmp_path / "out").model), logits(model))
    nested = tiny("gemma3")
    save(nested, byte_tokenizer(), tmp_path / "nested", method="yarn:factor=4+resonance", target=512)
    assert not read_record(tmp_path / "nested").exported, "longrope as one of several embeddings fails in transformers 5.20"
    with pytest.raises(CheckpointError, match=r"is no export: yarn:factor=4 stands in its longreach.json, and only longreach applies it"):
        verify_export(tmp_path / "out")


def test_only_exports_are_verified(folder):
    with pytest.raises(CheckpointError, match=r"is not a checkpoint that longreach exported with a method"):
        verify_export(folder)


def test_a_method_given_to_load_is_applied_for_good(folder, tmp_path):
    model, tokenizer = load(folder, method="log_n")
    with longreach.apply(tiny(), "log_n") as plain:
        wanted = logits(plain)
    assert torch.equal(logits(model), wanted)
    with pytest.raises(InputError, match=r"log_n is to be saved without a target"):
        save(model, tokenizer, tmp_path / "out")
    save(model, tokenizer, tmp_path / "out", target=128)
    assert torch.equal(logits(load(tmp_path / "out").model), wanted)
    model.longreach_undo.close()
    assert torch.equal(logits(model), logits(tiny()))


def test_a_method_without_settings_reaches_the_target(folder):
    model, tokenizer = load(folder, method="yarn", target=256)
    assert model.longreach_record.method == "yarn:factor=2"  # 128 tokens were trained on
    assert tokenizer.model_max_length == 256


def test_what_would_do_nothing_is_not_exported(tmp_path):
    with pytest.raises(UnsupportedError, match=r"its full-attention layers use no positions, so there is nothing to change"):
        save(tiny("cohere2"), byte_tokenizer(), tmp_path / "out", method="linear:factor=4", target=512)
    assert not (tmp_path / "out").exists()

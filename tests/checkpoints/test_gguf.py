"""GGUF files as checkpoints: the same model, plain, with all that the file says of positions; and what is wrong with one in a line."""

import json
import math
import shutil

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import longreach
from longreach.checkpoints import gguf_header
from longreach.checkpoints.checkpoint import load, save
from longreach.checkpoints.gguf import spread
from longreach.checkpoints.gguf_header import read_header
from longreach.checkpoints.places import checkpoint_name
from longreach.core.errors import CheckpointError, InputError
from longreach.engine.fingerprint import fingerprint
from longreach.engine.window import window_of
from tests.checkpoints.folders import byte_tokenizer, logits, tiny
from tests.checkpoints.gguf_files import TOKENS, write_gguf

WINDOW = 128  # of the tiny models


@pytest.fixture
def file(whole, tmp_path):
    """A GGUF file to break."""
    return shutil.copy(whole, tmp_path / "tiny.gguf")


def test_it_is_the_model_that_was_written(whole):
    model, tokenizer = load(whole)
    assert torch.equal(logits(model), logits(tiny()))
    assert window_of(model) == WINDOW
    text = "The  path\n\tthé"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer(text).input_ids) == len(text.encode()) - 2, "`th` is one token, twice"
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<bos>", "<eos>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "<bos>user: a!"


def test_it_comes_back_from_a_saved_folder_without_longreach(whole, tmp_path):
    model, tokenizer = load(whole)
    print_of_file = fingerprint(model)
    folder = save(model, tokenizer, tmp_path / "plain")
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(again), logits(tiny()))
    assert not hasattr(again.config, "quantization_config")
    text = "the path"
    assert AutoTokenizer.from_pretrained(folder)(text).input_ids == tokenizer(text).input_ids
    assert fingerprint(load(folder).model) == print_of_file


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0])
def test_weights_of_every_kind_come_in_the_dtype_that_is_asked_for(tmp_path, kind):
    file = write_gguf(tmp_path / "tiny.gguf", kind=kind)
    model = load(file, dtype="float32").model
    assert model.dtype == torch.float32
    name = "model.layers.1.mlp.up_proj.weight"
    stored = torch.from_numpy(gguf.dequantize(gguf.quantize(tiny().state_dict()[name].numpy(), kind), kind))
    assert torch.equal(model.state_dict()[name], stored)
    assert load(file, dtype="bfloat16").model.dtype == torch.bfloat16
    assert load(file, dtype="auto").model.dtype == (torch.float16 if kind == Kind.F16 else torch.bfloat16)


def test_quantized_weights_are_trained_and_saved_like_others(tmp_path):
    model, tokenizer = load(write_gguf(tmp_path / "tiny.gguf", kind=Kind.Q8_0))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not getattr(model, "is_quantized", False)
    folder = save(model, tokenizer, tmp_path / "plain")
    assert torch.equal(logits(load(folder).model), logits(model))


def test_what_lies_beside_the_file_is_not_mixed_in(file):
    (file.parent / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 7}))
    (file.parent / "tokenizer_config.json").write_text(json.dumps({"chat_template": "wrong", "auto_map": {"AutoTokenizer": "run.Me"}}))
    model, tokenizer = load(file)
    assert model.config.model_type == "llama"
    assert "wrong" not in tokenizer.chat_template


def test_rows_call_it_by_its_file(whole):
    assert checkpoint_name(str(whole)) == "tiny.gguf"
    rows = longreach.measure(*load(whole), to=128, tasks="loss", windows=2)
    assert {row.model for row in rows} == {"tiny.gguf"}


def test_a_file_without_the_usual_ending_is_known_by_its_first_bytes(file):
    assert load(file.rename(file.with_name("sha256-12ab"))).model.config.model_type == "llama"


def rope(tmp_path, values=None, tensors=None, model=None):
    """The rotary embedding of a file with such metadata and tensors."""
    loaded = load(write_gguf(tmp_path / "tiny.gguf", model, values=values, tensors=tensors)).model
    return loaded.config.rope_parameters, loaded


def scaled(**parameters):
    """A tiny model with a scaled rotary embedding."""
    return tiny(rope_parameters={"rope_theta": 10_000.0, **parameters})


def test_linear_scaling_is_kept(tmp_path):
    found, model = rope(tmp_path, {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0})
    assert (found["rope_type"], found["factor"]) == ("linear", 4.0)
    assert torch.equal(logits(model), logits(scaled(rope_type="linear", factor=4.0)))


def test_a_factor_alone_is_linear_as_in_llama_cpp(tmp_path):
    assert rope(tmp_path, {"rope.scaling.factor": 2.0})[0]["rope_type"] == "linear"
    assert rope(tmp_path, {"rope.scaling.type": "none", "rope.scaling.factor": 2.0})[0]["rope_type"] == "default"


def test_yarn_is_kept_and_states_the_window_before_it(tmp_path):
    values = {
        "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32,
        "rope.scaling.yarn_beta_fast": 16.0, "rope.scaling.yarn_attn_factor": 1.25,
    }  # fmt: skip
    found, model = rope(tmp_path, values)
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16.0, "attention_factor": 1.25}
    assert {key: found[key] for key in yarn} == yarn
    assert window_of(model) == 4 * 32
    assert torch.equal(logits(model), logits(scaled(**yarn)))


def test_frequencies_that_llama_3_explains_are_stated_as_its_scaling(tmp_path):
    llama3 = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    original = tiny(rope_parameters={"rope_theta": 500_000.0, **llama3}, max_position_embeddings=131_072)
    head = original.config.head_dim
    plain = 500_000.0 ** (-torch.arange(0, head, 2) / head)
    factors = (plain / original.model.rotary_emb.inv_freq).tolist()
    assert len({round(each, 3) for each in factors}) > 2, "no frequency lies between the two ends"
    found, model = rope(tmp_path, tensors={"rope_freqs.weight": factors}, model=original)
    assert {key: found[key] for key in llama3} == llama3
    assert torch.allclose(logits(model), logits(original), atol=1e-5)
    assert window_of(model) == 131_072


def test_frequencies_of_another_kind_are_divided_as_the_file_says(tmp_path):
    factors = [1.0, 1.5, 2.0, 3.0]
    _, model = rope(tmp_path, tensors={"rope_freqs.weight": factors})
    expected = tiny().model.rotary_emb.inv_freq / torch.tensor(factors)
    for length in (8, WINDOW + 8):  # this rope type has a list for texts beyond the window
        model(torch.zeros(1, length, dtype=torch.long))
        assert torch.allclose(model.model.rotary_emb.inv_freq, expected)
    assert model.model.rotary_emb.attention_scaling == 1.0
    assert window_of(model) == WINDOW


def test_longrope_comes_with_its_factors(tmp_path):
    tensors = {"rope_factors_long.weight": [1.0, 2.0, 4.0, 8.0], "rope_factors_short.weight": [1.0, 1.0, 1.5, 2.0]}
    found, model = rope(tmp_path, {"rope.scaling.original_context_length": 32, "rope.scaling.attn_factor": 1.5}, tensors)
    assert (found["rope_type"], found["long_factor"], found["short_factor"]) == ("longrope", *map(list, tensors.values()))
    assert (found["factor"], found["attention_factor"]) == (4.0, 1.5)
    assert window_of(model) == 4 * 32


def test_phi_3_has_its_window_before_longrope_where_it_looks_for_it(tmp_path):
    tensors = {"rope_factors_long.weight": [2.0, 4.0], "rope_factors_short.weight": [1.0, 1.5]}
    values = {"rope.scaling.original_context_length": 32, "rope.dimension_count": 4}
    found = config_of(write_gguf(tmp_path / "tiny.gguf", architecture="phi3", values=values, tensors=tensors))
    assert (found.rope_parameters["rope_type"], found.rope_parameters["partial_rotary_factor"]) == ("longrope", 0.5)
    assert found.original_max_position_embeddings == 32


def test_frequencies_that_nothing_divides_are_no_scaling(tmp_path):
    assert rope(tmp_path, tensors={"rope_freqs.weight": [1.0] * 4})[0]["rope_type"] == "default"


def test_heads_are_as_wide_as_the_file_says(tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf", architecture="qwen3", values={"attention.key_length": 8})
    assert config_of(file).head_dim == 8  # Qwen 3's own is 128


@pytest.mark.parametrize(
    ("values", "tensors", "says"),
    [
        ({"rope.scaling.type": "spiral", "rope.scaling.factor": 2.0}, {}, r"scaled by spiral, for which transformers has no rope type"),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0, "rope.scaling.yarn_ext_factor": 0.0}, {},
            r"scaled by yarn with yarn_ext_factor, for which",
        ),
        ({"rope.scaling.factor": 2.0}, {"rope_freqs.weight": [1.0] * 4}, r"scaled twice, by linear and by rope_freqs\.weight"),
    ],
)  # fmt: skip
def test_scaling_that_cannot_be_kept_is_refused(tmp_path, values, tensors, says):
    with pytest.raises(CheckpointError, match=says):
        rope(tmp_path, values, tensors)


def config_of(file):
    """What a file of any architecture becomes."""
    with spread(file, file.name, tokenizer=False) as folder:
        return AutoConfig.from_pretrained(folder)


@pytest.mark.parametrize("architecture", ["stablelm", "phi3"])
def test_the_share_of_a_head_that_is_rotated_is_kept(tmp_path, architecture):
    file = write_gguf(tmp_path / "tiny.gguf", architecture=architecture, values={"rope.dimension_count": 4})
    assert config_of(file).rope_parameters["partial_rotary_factor"] == 0.5


def test_a_share_that_the_family_does_not_have_is_refused(tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf", architecture="qwen2", values={"rope.dimension_count": 4})
    with pytest.raises(CheckpointError, match=r"rotates 4 of 8 dimensions, which transformers does not know of qwen2 models"):
        config_of(file)


def test_the_window_of_sliding_attention_is_kept(tmp_path):
    assert config_of(write_gguf(tmp_path / "tiny.gguf", architecture="phi3", values={"attention.sliding_window": 17})).sliding_window == 17


def test_layers_that_slide_are_not_scaled(tmp_path):
    values = {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0, "rope.freq_base_swa": 5_000.0, "attention.key_length": 8}
    found = config_of(write_gguf(tmp_path / "tiny.gguf", architecture="gemma3", values=values)).rope_parameters
    assert found["full_attention"] == {"rope_type": "linear", "factor": 8.0, "rope_theta": 10_000.0}
    assert found["sliding_attention"] == {"rope_type": "default", "rope_theta": 5_000.0}


def test_a_truncated_file_is_refused_wherever_it_ends(whole, tmp_path):
    data, cut = whole.read_bytes(), tmp_path / "cut.gguf"
    header = read_header(whole, "whole")
    data_start = min(tensor.offset for tensor in header.tensors.values())
    for size in (4, 20, 24, 100, data_start // 2, data_start - 40):
        cut.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"cut\.gguf is truncated: it ends inside its header; fetch it again"):
            load(cut)
    last = max(tensor.offset + tensor.size for tensor in header.tensors.values())
    cut.write_bytes(data[: last - 1])
    with pytest.raises(CheckpointError, match=rf"cut\.gguf is truncated: it has {last - 1} bytes and its header says {last};"):
        load(cut)


@pytest.mark.parametrize("at", [4, 24, 32])
def test_a_damaged_header_is_one_line(file, at):
    data = bytearray(file.read_bytes())
    data[at : at + 4] = b"\xff\xff\xff\xff"
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"tiny\.gguf (has version 4294967295|is truncated|is corrupt)") as caught:
        load(file)
    assert "\n" not in str(caught.value)


def test_each_mistake_is_one_line(tmp_path, file):
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"PK\3\4" + bytes(64))
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "folder.gguf").mkdir()
    for name, says in {
        "wrong.gguf": r"wrong\.gguf is not a GGUF file: it does not begin with GGUF; fetch it again",
        "empty.gguf": r"empty\.gguf is not a GGUF file",
        "notes.txt": r"notes\.txt is a file; give the folder of the checkpoint, or a GGUF file",
        "folder.gguf": r"folder\.gguf has no config\.json: it is not a checkpoint",
        "missing.gguf": r"no such file or folder: .*missing\.gguf",
    }.items():
        with pytest.raises(CheckpointError, match=says):
            load(tmp_path / name)
    wrong.unlink()
    (tmp_path / "empty.gguf").unlink()
    (tmp_path / "folder.gguf").rmdir()
    with pytest.raises(CheckpointError, match=r"holds the GGUF file tiny\.gguf; give the file itself: .*tiny\.gguf"):
        load(tmp_path)
    tiny().config.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no weights: .*\(tiny\.gguf is not read; give the file itself\)"):
        load(tmp_path)
    with pytest.raises(InputError, match=r"revision v2 has no effect on .*tiny\.gguf"):
        load(file, revision="v2")


def test_an_architecture_that_transformers_does_not_read_is_named(tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf", architecture="mamba2x")
    with pytest.raises(CheckpointError, match=r"cannot read GGUF files of the architecture mamba2x .*; give the folder of the original"):
        load(file)


def test_a_file_in_parts_is_refused(tmp_path, file):
    file = file.rename(tmp_path / "big-00002-of-00003.gguf")
    with pytest.raises(CheckpointError, match=r"is part 2 of 3, and GGUF files in parts are not read; .*llama-gguf-split --merge"):
        load(file)
    file = write_gguf(tmp_path / "named.gguf", values={"split.count": 4})
    with pytest.raises(CheckpointError, match=r"named\.gguf is part 1 of 4"):
        load(file)


def test_a_file_without_tokenizer_or_weights_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"bare\.gguf has no tokenizer; give the folder of the original checkpoint"):
        load(write_gguf(tmp_path / "bare.gguf", tokenizer=False))
    # A layer more than there are weights for.
    model = tiny()
    model.config.num_hidden_layers += 1
    with pytest.raises(CheckpointError, match=r"lacks 9 of its model's weights \(the first: model\.layers\."):
        load(write_gguf(tmp_path / "short.gguf", model))


def test_without_the_package_the_remedy_is_named(whole, monkeypatch):
    monkeypatch.setattr(gguf_header, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"reading one needs the package gguf; pip install 'longreach\[gguf\]'"):
        load(whole)


def test_four_bits_are_refused(whole, monkeypatch):
    monkeypatch.setattr("longreach.checkpoints.choices.find_spec", lambda name: "there")
    with pytest.raises(InputError, match=r"tiny\.gguf is a GGUF file, and those are not loaded in 4 bits; save it as a folder first"):
        load(whole, load_in_4bit=True)


def test_a_method_is_saved_with_it(whole, tmp_path):
    model, tokenizer = load(whole)
    folder = save(model, tokenizer, tmp_path / "longer", method="yarn:factor=2", target=2 * WINDOW)
    found = AutoModelForCausalLM.from_pretrained(folder).config.rope_parameters
    assert (found["rope_type"], found["factor"], found["original_max_position_embeddings"]) == ("yarn", 2.0, WINDOW)


def test_the_header_says_what_the_file_holds(whole):
    header = read_header(whole, "tiny")
    assert header.architecture == "llama"
    assert header.get("context_length") == WINDOW
    assert header.values["tokenizer.ggml.tokens"] == len(TOKENS)
    reader = gguf.GGUFReader(whole)
    assert {name: (tensor.offset, tensor.size, math.prod(tensor.shape)) for name, tensor in header.tensors.items()} == {
        tensor.name: (tensor.data_offset, tensor.n_bytes, tensor.n_elements) for tensor in reader.tensors
    }

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, LlamaForSequenceClassification, PreTrainedModel, T5Config

import longreach
from longreach.checkpoints import _safety, checkpoint, placement, places
from longreach.checkpoints.checkpoint import load, save
from longreach.core.errors import CheckpointError, InputError
from tests.checkpoints.folders import byte_tokenizer, edit, logits, tiny, write_folder


def test_a_folder_is_loaded(folder):
    model, tokenizer = load(folder)
    assert not model.training
    assert torch.equal(logits(model), logits(tiny()))
    assert tokenizer("hé")["input_ids"] == byte_tokenizer()("hé")["input_ids"]


def test_a_relative_folder_is_a_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert isinstance(load("base").model, PreTrainedModel)


def test_nano_is_found_in_the_package(folder, monkeypatch):
    monkeypatch.setattr(places, "files", lambda package: {"longreach.checkpoints": folder.parent}[package])
    with pytest.raises(CheckpointError, match=r"this installation of longreach lacks the bundled model nano"):
        load("nano")
    folder.rename(folder.with_name("nano"))
    assert isinstance(load("nano").model, PreTrainedModel)


def test_the_dtype_on_a_cpu_is_float32_below_a_limit(folder, monkeypatch):
    tiny().to(torch.bfloat16).save_pretrained(folder)
    assert load(folder).model.dtype == torch.float32
    assert load(folder, dtype="auto").model.dtype == torch.bfloat16
    assert load(folder, dtype=torch.float16).model.dtype == torch.float16
    for fast in (False, True):
        monkeypatch.setattr(placement, "computes_in_bfloat16", lambda fast=fast: fast)
        monkeypatch.setattr(placement, "FAST_BFLOAT16_LIMIT", 1000)
        assert load(folder).model.dtype == (torch.bfloat16 if fast else torch.float32)
    monkeypatch.setattr(placement, "FLOAT32_LIMIT", 1000)
    monkeypatch.setattr(placement, "computes_in_bfloat16", lambda: False)
    assert load(folder).model.dtype == torch.bfloat16
    assert load(folder, dtype="float32").model.dtype == torch.float32


def test_shards_are_loaded_and_all_have_to_be_there(folder):
    (folder / "model.safetensors").unlink()
    tiny().save_pretrained(folder, max_shard_size="20KB")
    assert torch.equal(logits(load(folder).model), logits(tiny()))
    shards = sorted(folder.glob("model-*.safetensors"))
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=rf"{shards[1].name} is missing \(1 of {len(shards)} weight files\)"):
        load(folder)


def test_an_index_cannot_name_files_elsewhere(folder):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"lists no weights, or weights outside the checkpoint"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("./nothing", "no such folder: ./nothing"),
        ("/nothing/at/all", "no such folder: /nothing/at/all"),
        ("a/b/c", "no such folder: a/b/c"),
        ("some/model", "some/model is not a folder here and could not be fetched from the hub: "),
        ("nothing", "nothing is not a folder here and could not be fetched from the hub: "),
    ],
)
def test_what_is_not_there(name, says):
    with pytest.raises(CheckpointError) as caught:
        load(name)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_hub_models_go_the_same_way(folder, monkeypatch):
    asked = []

    def snapshot(name, revision, allow_patterns):
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert torch.equal(logits(load("some/model").model), logits(tiny()))
    assert [patterns for _, patterns in asked] == [["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"], ["model.safetensors"]]
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "code.Model"}, model_type="foreign")
    asked.clear()
    with pytest.raises(CheckpointError, match=r"brings its own code"):
        load("some/model")
    assert len(asked) == 1, "weights of a refused model are not fetched"


def test_a_link_says_what_is_fetched(folder, monkeypatch):
    calls = []

    def snapshot(name, revision, allow_patterns):
        calls.append((name, revision))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    load("https://huggingface.co/some/model/tree/v2")
    assert set(calls) == {("some/model", "v2")}


def test_a_target_without_a_method_is_refused(folder):
    with pytest.raises(InputError, match=r"target=512 is for a method, and none is given"):
        load(folder, target=512)


def test_a_revision_of_a_folder_is_refused(folder):
    with pytest.raises(InputError, match=r"revision v2 has no effect on .*base, which is not on the hub"):
        load(folder, revision="v2")


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "model.pt").touch()
    with pytest.raises(CheckpointError, match=r"is a file; give the folder of the checkpoint"):
        load(tmp_path / "model.pt")


def test_no_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config.json: it is not a checkpoint"):
        load(folder)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/model"}')
    with pytest.raises(CheckpointError, match=r"base is an adapter, not a model; its model is some/model, and --adapter .*base merges"):
        load(folder)


@pytest.mark.parametrize("text", ["{", "[1]", "\ud800"])
def test_a_broken_config(folder, text):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError, match=r"is not valid JSON|is not a JSON object"):
        load(folder)


def test_an_unknown_architecture(folder):
    edit(folder / "config.json", model_type="no_such_model")
    with pytest.raises(CheckpointError, match=r"cannot be loaded: .*no_such_model"):
        load(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"has no weights: neither model\.safetensors nor .*\(weights\.safetensors is not read\)"):
        load(folder)


def test_pickled_weights_are_refused_unless_allowed(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"Only safetensors are loaded unless --allow-pickle"):
        load(folder)
    assert torch.equal(logits(load(folder, allow_pickle=True).model), logits(tiny()))
    (folder / "pytorch_model.bin").rename(folder / "other.pth")
    with pytest.raises(CheckpointError, match=r"has no weights: .*\(other.pth is not read\)"):
        load(folder, allow_pickle=True)


def test_pickle_beside_safetensors_is_not_touched(folder):
    (folder / "pytorch_model.bin").write_bytes(b"not to be read")
    assert torch.equal(logits(load(folder, allow_pickle=True).model), logits(tiny()))


FOREIGN = {"config.json": {"model_type": "evil"}, "tokenizer_config.json": {"tokenizer_class": "EvilTokenizer"}}


@pytest.mark.parametrize("file", FOREIGN)
def test_code_in_a_checkpoint_is_refused(folder, file):
    edit(folder / file, auto_map={"AutoConfig": "evil.Config"}, **FOREIGN[file])
    (folder / "evil.py").write_text("raise SystemExit('the code ran')")
    with pytest.raises(CheckpointError, match=rf"brings its own code \(auto_map in {file}\), which is not run unless --trust-remote-code"):
        load(folder)


def test_code_that_transformers_has_replaced_is_not_run(folder):
    edit(folder / "config.json", auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]}, tokenizer_class="PreTrainedTokenizerFast")
    (folder / "evil.py").write_text("raise SystemExit('the code ran')")
    assert torch.equal(logits(load(folder).model), logits(tiny()))


def test_code_in_a_checkpoint_runs_when_trusted(folder):
    # This one names transformers' own class in a file of its own.
    (folder / "own.py").write_text("from transformers import LlamaForCausalLM\n\nclass Own(LlamaForCausalLM):\n    pass\n")
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "own.Own"})
    model = load(folder, trust_remote_code=True).model
    assert type(model).__name__ == "Own"
    assert torch.equal(logits(model), logits(tiny()))


@pytest.mark.parametrize("kind", ["encoder", "masked", "classifier"])
def test_other_kinds_of_models_are_refused(folder, kind):
    if kind == "encoder":
        T5Config(architectures=["T5EncoderModel"]).save_pretrained(folder)
    elif kind == "masked":
        small = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        BertForMaskedLM(small).save_pretrained(folder)
    else:
        LlamaForSequenceClassification(tiny().config).save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"is not a causal language model"):
        load(folder)


def test_truncated_weights(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match=rf"truncated: it has {len(whole) - 100} bytes and its header says {len(whole)}"):
        load(folder)
    file.write_bytes(whole[:100])
    with pytest.raises(CheckpointError, match=r"truncated: it ends inside its header"):
        load(folder)


def test_corrupt_weights(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(b"<html>not found</html>" * 50)
    with pytest.raises(CheckpointError, match=r"corrupt: it does not begin with a safetensors header"):
        load(folder)
    file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"corrupt: it does not begin with a safetensors header"):
        load(folder)
    file.write_bytes(whole[:8] + b"x" * 40 + whole[48:])
    with pytest.raises(CheckpointError, match=r"corrupt: its safetensors header cannot be read"):
        load(folder)
    file.write_bytes(whole + b"more")
    with pytest.raises(CheckpointError, match=r"corrupt: it has"):
        load(folder)


def test_missing_weights_are_not_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 of its model's weights \(the first: model.layers.1.mlp.up_proj.weight\)"):
        load(folder)


def test_tied_weights_are_not_missing(tmp_path):
    write_folder(tmp_path / "tied", tie_word_embeddings=True)
    assert torch.equal(logits(load(tmp_path / "tied").model), logits(tiny(tie_word_embeddings=True)))


def test_weights_of_another_shape(folder):
    edit(folder / "config.json", intermediate_size=80)
    with pytest.raises(CheckpointError, match=r"cannot be loaded: "):
        load(folder)


def test_no_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer"):
        load(folder)


def test_a_broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"the tokenizer of .* cannot be loaded: "):
        load(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"the tokenizer of "):
        load(folder)


def test_unknown_dtypes_and_devices(folder):
    with pytest.raises(InputError, match=r"unknown dtype 'half'; choose auto, float32, bfloat16, float16"):
        load(folder, dtype="half")
    with pytest.raises(InputError, match=r"unknown device 'gpu'; write cpu, cuda, cuda:1 or mps"):
        load(folder, device="gpu")
    with pytest.raises(InputError, match=r"device cuda:99 is not there"):
        load(folder, device="cuda:99")


def test_a_model_that_does_not_fit_is_not_loaded(folder, monkeypatch):
    elements = sum(parameter.numel() for parameter in tiny().parameters())
    monkeypatch.setattr(_safety, "available_bytes", lambda device: 3 * elements)
    size = r"0\.\d MB"
    says = rf"needs {size} of memory in float32 and {size} are free on cpu; --dtype bfloat16 takes {size}"
    with pytest.raises(CheckpointError, match=says):
        load(folder)
    assert load(folder, dtype="bfloat16").model.dtype == torch.bfloat16
    monkeypatch.setattr(_safety, "available_bytes", lambda device: elements)
    with pytest.raises(CheckpointError, match=r"choose a smaller checkpoint or a machine with more memory"):
        load(folder)


def test_needed_memory_comes_from_the_headers(tmp_path):
    save_file({"a": torch.zeros(10, 10, dtype=torch.bfloat16), "b": torch.zeros(7, dtype=torch.int64)}, tmp_path / "model.safetensors")
    weights = _safety.find_weights(tmp_path, "it", allow_pickle=False)
    assert weights.parameters == 107
    assert weights.bytes_in(torch.float32) == 400 + 56
    assert weights.bytes_in(None) == 200 + 56


def test_available_memory_of_a_machine(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:   42 kB\n")
    assert _safety._meminfo(tmp_path / "meminfo") == 42 * 1024
    assert _safety._meminfo(tmp_path / "none") is None
    free = _safety.available_bytes(torch.device("cpu"))
    assert free is None or free > 0


def test_available_memory_of_a_control_group(tmp_path):
    mine = tmp_path / "cgroup"
    mine.write_text("4:memory:/job\n9:cpu:/job\n0::/job/inner\n")
    assert _safety._control_group(tmp_path, mine) is None
    (tmp_path / "job" / "inner").mkdir(parents=True)
    (tmp_path / "job" / "inner" / "memory.max").write_text("max\n")
    assert _safety._control_group(tmp_path, mine) is None
    (tmp_path / "job" / "memory.max").write_text("1000\n")
    (tmp_path / "job" / "memory.current").write_text("700\n")
    (tmp_path / "job" / "memory.stat").write_text("anon 100\ninactive_file 250\n")
    assert _safety._control_group(tmp_path, mine) == 550
    (tmp_path / "memory" / "job").mkdir(parents=True)
    (tmp_path / "memory" / "job" / "memory.limit_in_bytes").write_text("400\n")
    (tmp_path / "memory" / "job" / "memory.usage_in_bytes").write_text("100\n")
    assert _safety._control_group(tmp_path, mine) == 300


def test_public_names():
    assert longreach.load is load
    assert longreach.save is save
    assert checkpoint.verify_export.__module__ == "longreach.checkpoints.export"

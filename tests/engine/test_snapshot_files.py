"""Files of snapshots: whole or refused, and good for another process."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import DynamicCache

import longreach
from longreach.core.errors import InputError, LongreachError
from longreach.engine import snapshot_files
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument, cache_of
from longreach.engine.fingerprint import fingerprint
from longreach.engine.snapshot_files import load, read_header, save
from longreach.engine.snapshots import restore, snapshot
from longreach.testing.conformance.base import same
from longreach.testing.models import DECODERS, FAMILIES, random_ids, tiny_biased, tiny_learned, tiny_model

SPEC = "h2o:budget=16,slack=4"
IDS, MORE = random_ids(2, 30), random_ids(2, 6, seed=1)


def read(model, cache, ids):
    """Logits [B, T, V] of one forward pass."""
    with torch.no_grad():
        return model(ids, **cache_argument(model, cache), use_cache=True).logits


def saved(path, model, spec=SPEC):
    """Save what a model has read, and return the logits with which it would go on."""
    with apply(model, spec):
        cache = DynamicCache(config=model.config)
        read(model, cache, IDS)
        save(snapshot(cache), path, model)
        return read(model, cache, MORE)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def file(tmp_path, model):
    saved(path := tmp_path / "read.safetensors", model)
    return path


PROGRAM = f"""
import sys
import torch
from transformers import DynamicCache
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.snapshot_files import load
from longreach.engine.snapshots import restore
from longreach.testing.models import random_ids, tiny_model

model = tiny_model()
with apply(model, {SPEC!r}), torch.no_grad():
    cache = DynamicCache(config=model.config)
    restore(cache, load(sys.argv[1], model))
    torch.save(model(random_ids(2, 6, seed=1), **cache_argument(model, cache), use_cache=True).logits, sys.argv[2])
"""


def test_another_process_goes_on(tmp_path, model, plain_transformers):
    file, program, found = tmp_path / "read.safetensors", tmp_path / "program.py", tmp_path / "logits.pt"
    wanted = saved(file, model)
    program.write_text(PROGRAM)
    done = plain_transformers.run([sys.executable, "-P", str(program), str(file), str(found)])
    assert done.returncode == 0, done.stderr
    same(torch.load(found), wanted, "in another process")


def test_the_header_says_what_was_read(file, model):
    header = read_header(file)
    with apply(model, SPEC):
        assert (header.longreach, header.method, header.tokens, header.model) == (longreach.__version__, SPEC, 30, fingerprint(model))
    with safe_open(file, framework="pt") as stored:
        assert len(stored.keys()) < 20  # small tensors lie together


def test_large_tensors_lie_by_themselves(tmp_path, model, monkeypatch):
    monkeypatch.setattr(snapshot_files, "_LARGE", 2000)
    wanted = saved(tmp_path / "read.safetensors", model)
    with safe_open(tmp_path / "read.safetensors", framework="pt") as stored:
        assert len(stored.keys()) > 20
    with apply(model, SPEC):
        restore(cache := DynamicCache(config=model.config), load(tmp_path / "read.safetensors", model))
        same(read(model, cache, MORE), wanted, "from large tensors")


def test_a_restored_cache_does_not_hang_on_its_file(file, model):
    with apply(model, SPEC):
        restore(cache := DynamicCache(config=model.config), load(file, model))
        restore(other := DynamicCache(config=model.config), load(file, model))
        wanted = read(model, other, MORE)
        with file.open("r+b") as stream:  # in place, as `save` never does
            stream.write(bytes(file.stat().st_size))
        same(read(model, cache, MORE), wanted, "after its file was overwritten")


def test_a_model_whose_weights_are_offloaded(tmp_path):
    model = tiny_model()
    cpu_offload(model, execution_device=torch.device("cpu"))
    cache, again = DynamicCache(config=model.config), DynamicCache(config=model.config)
    read(model, cache, IDS)
    save(snapshot(cache), tmp_path / "read", model)
    restore(again, load(tmp_path / "read", model))
    same(read(model, again, MORE), read(model, cache, MORE), "from the file")


@pytest.mark.parametrize(("name", "why"), [("nowhere/read", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_written(tmp_path, model, name, why):
    with pytest.raises(InputError, match=f"^cannot write {tmp_path / name}: {why}$"):
        saved(tmp_path / name, model)


FULL = "No space left on device"


@pytest.mark.parametrize(
    "error", [OSError(28, FULL), SafetensorError(f'Error while serializing: I/O error: {FULL} (os error 28) at path "/disk/.tmp92u3xl"')]
)
def test_an_old_file_stays_where_writing_fails(file, model, monkeypatch, error):
    before = file.read_bytes()

    def fails(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(snapshot_files, "save_file", fails)
    with pytest.raises(InputError, match=f"^cannot write {file}: {FULL}$"):
        saved(file, model)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_only_what_is_applied_is_saved(tmp_path, model):
    with apply(model, SPEC):
        cache = DynamicCache(config=model.config)
        read(model, cache, IDS)
        taken = snapshot(cache)
    for spec, now in ((None, "no method is applied"), (SPEC, "applied to the model anew")):
        with apply(model, spec), pytest.raises(LongreachError, match=f"taken under something else .*{now}"):
            save(taken, tmp_path / "read.safetensors", model)
    assert not list(tmp_path.iterdir())


def plain_snapshot(model):
    """Of a cache that was filled without a method."""
    if model.config.is_encoder_decoder:
        with torch.no_grad():
            return snapshot(cache_of(model(IDS, decoder_input_ids=MORE, use_cache=True)))
    cache = DynamicCache(config=model.config)
    read(model, cache, IDS)
    return snapshot(cache)


@pytest.mark.parametrize("make", [
    *(pytest.param(partial(tiny_model, name), id=name) for name in FAMILIES),
    *(pytest.param(partial(tiny_learned, name), id=name) for name in DECODERS),
    pytest.param(partial(tiny_biased, num_decoder_layers=3), id="t5"),
])  # fmt: skip
def test_a_model_saves_what_it_read_without_a_method(tmp_path, make):
    model = make()
    save(plain_snapshot(model), tmp_path / "read", model)
    assert load(tmp_path / "read", model).tokens in (30, 6)


def test_what_was_read_under_autocast(tmp_path, model):
    with torch.autocast("cpu", torch.bfloat16):
        taken = plain_snapshot(model)
        save(taken, tmp_path / "read", model)
    if all(tensor.dtype == torch.float32 for part in taken.caches[0] for tensor in part.tensors):
        save(taken, tmp_path / "read", model)  # a transformers that keeps values as the model has them
        return
    with pytest.raises(LongreachError, match=r"values in torch\.bfloat16, and the model torch\.float32; .* inside autocast"):
        save(taken, tmp_path / "read", model)


# --- what is refused


OTHERS = pytest.mark.parametrize(
    ("make", "why"),
    [
        (partial(tiny_model, num_hidden_layers=2), "3 layers, and the model 2"),
        (partial(tiny_model, "llama_mha"), "keys of 2 heads of 16, and the model of 64 numbers in all"),
        (lambda: tiny_model().bfloat16(), "keys in torch.float32, and the model torch.bfloat16"),
    ],
    ids=["layers", "heads", "dtype"],
)


@OTHERS
def test_a_model_does_not_save_what_one_of_another_shape_read(tmp_path, model, make, why):
    other = make()
    with pytest.raises(LongreachError, match=f"was not read by this LlamaForCausalLM: it has {why}; save it with the model that read it"):
        save(plain_snapshot(model), tmp_path / "read", other)
    assert not list(tmp_path.iterdir())


@OTHERS
def test_a_file_that_says_another_model_read_it(tmp_path, model, make, why):
    other, file = make(), tmp_path / "read"
    save(plain_snapshot(model), file, model)
    header, tensors = header_of(file)
    signed(file, {**header, "model": fingerprint(other)}, tensors)
    with pytest.raises(InputError, match=f"holds something else than a cache of this model .it has {why}.; read the text again"):
        load(file, other)


def test_what_is_no_snapshot_is_not_saved(tmp_path, model):
    with pytest.raises(LongreachError, match="a DynamicCache is no snapshot; call snapshot"):
        save(DynamicCache(config=model.config), tmp_path / "read", model)


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-100])


def empty(file):
    file.write_bytes(b"")


def text(file):
    file.write_text("no snapshot")


def foreign(file):
    save_file({"weight": torch.ones(2)}, file)


def missing(file):
    file.unlink()


def flipped_bit(file):
    data = bytearray(file.read_bytes())
    data[-1000] ^= 1
    file.write_bytes(bytes(data))


def swapped(file):
    """Other names for the same contents."""
    names, tensors = header_of(file)
    one, two = sorted(name for name in tensors if name.endswith(".float32"))[:2]
    tensors[one], tensors[two] = tensors[two], tensors[one]
    rewritten(file, names, tensors)


def header_of(file):
    with safe_open(file, framework="pt") as stored:
        return json.loads(stored.metadata()["longreach_cache"]), load_file(file)


def rewritten(file, header, tensors):
    save_file(tensors, file, metadata={"longreach_cache": json.dumps(header)})


def signed(file, header, tensors):
    """Rewrite the file with the checksum that goes with it."""
    plain = snapshot_files.Header(**{name: value for name, value in header.items() if name != "format"})
    rewritten(file, {**header, "checksum": snapshot_files._checksum(plain, tensors)}, tensors)


def says(**changes):
    def change(file):
        header, tensors = header_of(file)
        rewritten(file, {**header, **changes}, tensors)

    change.__name__ = "_".join(changes)
    return change


def crafted(file):
    """Contents that are no cache's, with a checksum of their own."""
    header, tensors = header_of(file)
    state = json.loads(tensors["state"].numpy().tobytes())
    for part in state[0]:
        part["frozen"] = part["frozen"][:1]
    tensors["state"] = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)
    signed(file, header, tensors)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (missing, "is no file"),
        (empty, "is damaged, or no snapshot of a cache"),
        (text, "is damaged, or no snapshot of a cache"),
        (cut_short, "is damaged, or no snapshot of a cache"),
        (foreign, "is no snapshot of a cache, but another safetensors file"),
        (flipped_bit, "is damaged: its contents are not those that were saved"),
        (swapped, "is damaged: its contents are not those that were saved"),
        (says(format=2), rf"has format 2 \(longreach {longreach.__version__}\) and this longreach reads 1"),
        (says(longreach="0.0.1"), f"was written by longreach 0.0.1, and this is {longreach.__version__}"),
        (says(method="tova:budget=12"), f"was read under tova:budget=12, and {SPEC} is applied to the model; apply tova:budget=12"),
        (says(model="0" * 64), "was read by another model, by its config or its weights"),
        (says(tokens="many"), "is damaged: its header"),
        (says(tokens=31), "is damaged: its contents are not those that were saved"),
        (crafted, "holds something else than this model's caches"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_refused(file, model, damage, why):
    damage(file)
    with apply(model, SPEC), pytest.raises(InputError, match=why) as caught:
        restore(DynamicCache(config=model.config), load(file, model))
    assert "\n" not in str(caught.value)


def test_a_file_of_no_method_says_to_leave_the_one_that_is_applied(tmp_path, model):
    save(plain_snapshot(model), tmp_path / "read", model)
    why = "was read under no method, and log_n is applied to the model; leave log_n, or read the text again"
    with apply(model, "log_n"), pytest.raises(InputError, match=why):
        load(tmp_path / "read", model)


def test_other_methods_and_other_models_are_refused(file, model):
    with pytest.raises(InputError, match=f"was read under {SPEC}, and no method is applied to the model"):
        load(file, model)
    with apply(model, "h2o:budget=16,slack=5"), pytest.raises(InputError, match="slack=5 is applied to the model"):
        load(file, model)
    tuned = tiny_model()
    with torch.no_grad():
        tuned.model.layers[1].mlp.up_proj.weight.add_(1e-3)
    for other in (tuned, tiny_model(max_position_embeddings=64), tiny_model(num_hidden_layers=2), tiny_model().double()):
        with apply(other, SPEC), pytest.raises(InputError, match="was read by another model"):
            load(file, other)

import copy
import gc
import threading
import warnings
import weakref
from contextlib import ExitStack

import pytest
import torch
from transformers import AttentionInterface, AutoModel, DynamicCache
from transformers.cache_utils import QuantizedCache

import longreach
from longreach.core.errors import InputError, LongreachError, SpecError
from longreach.engine.apply import applied, apply
from longreach.engine.cache_argument import cache_argument
from longreach.testing.models import random_ids, tiny_model

SCALED, PLACED = "yarn:factor=4", "self_extend:neighbours=8,group=4"


@pytest.mark.parametrize("spec", [SCALED, PLACED])
@torch.no_grad()
def test_a_cache_stays_with_the_method_that_filled_it(spec):
    model, ids = tiny_model(), random_ids(1, 12)
    inside, outside = DynamicCache(), DynamicCache()
    model(ids, **cache_argument(model, outside))
    with apply(model, spec):
        model(ids, **cache_argument(model, inside))
        model(ids[:, :2], **cache_argument(model, inside))
        assert inside.get_seq_length() == 14
        with pytest.raises(LongreachError, match="filled outside the applied longreach method; start with a new cache"):
            model(ids[:, :2], **cache_argument(model, outside))
    with pytest.raises(LongreachError, match="no longer applied; start with a new cache"):
        model(ids[:, :2], **cache_argument(model, inside))
    assert inside.get_seq_length() == 14


@pytest.mark.parametrize("spec", [SCALED, PLACED])
def test_a_model_is_not_saved_without_its_method(spec, tmp_path):
    model = tiny_model()
    with apply(model, spec), pytest.raises(longreach.UnsupportedError, match=f"{spec} is applied to it"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    model.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").exists()


@pytest.mark.parametrize("spec", [SCALED, PLACED, "dynamic_ntk:step=8", "sirllm:budget=16,slack=4"])
@torch.no_grad()
def test_a_copy_made_inside_works_on_after_the_block(spec):
    model, ids = tiny_model(), random_ids(1, 60)
    stock = model(ids).logits
    with apply(model, spec):
        wanted, twin = model(ids).logits, copy.deepcopy(model)
    torch.testing.assert_close(twin(ids).logits, wanted)
    torch.testing.assert_close(model(ids).logits, stock)
    again = copy.deepcopy(twin)
    del twin
    gc.collect()
    torch.testing.assert_close(again(ids).logits, wanted)
    del again
    gc.collect()
    assert "longreach" not in AttentionInterface._global_mapping


@pytest.mark.parametrize(
    "spec", [SCALED, PLACED, "dynamic_ntk:step=8", "sirllm:budget=16,slack=4", "hip:budget=16", "duo:heads=0.0", "chunked", "padding_free"]
)
@torch.no_grad()
def test_a_model_that_is_let_go_is_freed_with_its_method(spec):
    model = tiny_model()
    model.undo = ExitStack()  # as a loaded checkpoint holds the method that it was saved with
    model.undo.enter_context(apply(model, spec))
    model(random_ids(1, 12))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_another_attention_function_set_inside_is_refused_by_name():
    model, ids = tiny_model(), random_ids(1, 12)
    with apply(model, PLACED):
        model.set_attn_implementation("eager")
        with pytest.raises(LongreachError, match=f"attention was set to 'eager' while {PLACED} is applied"):
            model(ids)
        model(ids)  # and the method is whole again
    assert model.config._attn_implementation == "sdpa"


def test_a_second_thread_is_refused_by_name():
    model, ids, errors = tiny_model(), random_ids(1, 12), []
    inside, go_on = threading.Event(), threading.Event()

    def wait(module, args, output):
        inside.set()
        go_on.wait(10)

    def other():
        inside.wait(10)
        try:
            model(ids)
        except LongreachError as error:
            errors.append(str(error))
        go_on.set()

    with apply(model, PLACED), torch.no_grad():
        hook = model.model.layers[0].register_forward_hook(wait)
        thread = threading.Thread(target=other)
        thread.start()
        model(ids)
        thread.join()
        hook.remove()
        model(ids)  # after an error in another thread, too
    assert len(errors) == 1
    assert errors[0].startswith(f"another thread runs this model under {PLACED}")


@pytest.mark.parametrize(
    ("spec", "reach"),
    [
        (SCALED, 4 * 32),
        (PLACED, (32 - 8) * 4 + 8),
        ("self_extend:neighbours=40,group=4", 32),  # neighbours beyond the window stand where it was not trained
        (f"linear:factor=2+{PLACED}", (64 - 8) * 4 + 8),
        ("log_n", 32),
        ("sinks:window_size=28", None),
        ("sinks:window_size=40", 32),
        ("rerope:window_size=16", None),
        ("h2o:budget=16", 32),
        ("h2o:packed=true,budget=16,slack=8", None),
        ("h2o:packed=true,budget=30,slack=8", 32),
        ("infllm:block_size=4,num_blocks=2,local_window=16", None),
        ("dynamic_ntk", None),
    ],
)
def test_what_goes_beyond_the_reach_of_a_method_is_said_once(spec, reach):
    model = tiny_model(max_position_embeddings=32)
    with apply(model, spec), torch.no_grad(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model(random_ids(1, reach or 200))
        assert not told
        for _ in range(2):
            model(random_ids(1, (reach or 200) + 1))
    assert len(told) == (reach is not None)
    if reach is not None:
        assert f"{reach + 1} tokens are read under {spec}, which reaches {reach}" in str(told[0].message)


@torch.no_grad()
def test_what_decoding_adds_counts_too():
    model = tiny_model(max_position_embeddings=32)
    with apply(model, "log_n"), pytest.warns(UserWarning, match="33 tokens are read under log_n"):
        model.generate(random_ids(1, 30), max_new_tokens=5, min_new_tokens=5, pad_token_id=0)


def test_a_model_without_a_head(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    body = AutoModel.from_pretrained(tmp_path)
    ids = random_ids(1, 60)
    with torch.no_grad():
        stock = body(ids).last_hidden_state
        with apply(body, PLACED):
            assert float((body(ids).last_hidden_state - stock).abs().max()) > 0.1
        torch.testing.assert_close(body(ids).last_hidden_state, stock)


class Embedder(torch.nn.Sequential):
    """As a SentenceTransformer is built: a module around a transformers model, and what makes a vector of its output."""


class Pipeline:
    def __init__(self, model):
        self.model = model


def test_models_inside_other_things():
    model = tiny_model()
    for thing in (Embedder(torch.nn.ModuleDict({"auto_model": model}), torch.nn.Identity()), Pipeline(model), longreach.load("nano")):
        with apply(thing, "log_n") as given:
            assert given is thing
            inner = model if not isinstance(thing, tuple) else thing.model
            assert applied(inner) == "log_n"


@pytest.mark.parametrize(("thing", "what"), [("nano", "the name 'nano'"), (None, "a NoneType"), (torch.nn.Linear(2, 2), "a Linear")])
def test_what_is_no_model_is_refused(thing, what):
    with pytest.raises(InputError, match=f"not {what}; model, tokenizer = longreach.load"), apply(thing, "log_n"):
        pass


def test_methods_as_a_list():
    model = tiny_model()
    with apply(model, [SCALED, "log_n"]):
        assert applied(model) == f"{SCALED}+log_n"
    with pytest.raises(SpecError, match="7 is no method"), apply(model, 7):
        pass


def test_a_method_without_settings_means_what_it_suggests():
    model = tiny_model(max_position_embeddings=32)
    with apply(model, "self_extend", target=128):
        assert applied(model).startswith("self_extend:neighbours=8,group=")
    with pytest.raises(SpecError, match="neighbours is missing"), apply(model, "self_extend"):
        pass


def test_a_cache_of_another_kind_is_refused_with_what_to_do():
    model = tiny_model()
    cache = object.__new__(QuantizedCache)  # its backends are not installed here
    cache.layers = []
    cache.layer_class_to_replicate = None
    with apply(model, PLACED), pytest.raises(LongreachError, match="a QuantizedCache cannot be used .* staircase"):
        model(random_ids(1, 4), **cache_argument(model, cache))

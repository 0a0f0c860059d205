import copy
import warnings

import pytest
import torch

from longreach.checkpoints.checkpoint import load
from longreach.core.errors import InputError, LongreachError, UnsupportedError
from longreach.decoding.generation import prompt_ids, text, tokens
from longreach.decoding.writing import generate, longest
from longreach.engine.apply import applied, apply
from longreach.training.adapters import add_adapters
from tests.checkpoints.folders import write_folder

PROMPT = "once upon a time" * 9  # 144 tokens; the window is 128


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A model that never ends by itself, and its tokenizer."""
    return load(write_folder(tmp_path_factory.mktemp("writing") / "tiny", eos_token_id=None))


def greedy(loaded, spec, most):
    with apply(loaded.model, spec, warn=False):
        return "".join(text(tokens(loaded.model, prompt_ids(loaded.tokenizer, PROMPT), max_new_tokens=most), loaded.tokenizer))


def test_it_writes_under_a_method_that_reaches_the_end_of_the_answer(loaded):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pieces = generate(*loaded, PROMPT, method="yarn", max_new_tokens=16)
        assert next(pieces)
        assert applied(loaded.model) == "yarn:factor=1.25", "144 tokens read and 16 written are 1.25 windows"
        pieces.close()
        assert applied(loaded.model) == ""
        assert "".join(generate(*loaded, PROMPT, method="yarn", max_new_tokens=16)) == greedy(loaded, "yarn:factor=1.25", 16)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (None, r"144 tokens read and up to 8 written go beyond the 128 that .*tiny is made for"),
        ("ntk:factor=1", r"144 tokens read and up to 8 written go beyond the 128 that ntk:factor=1 reaches"),
    ],
)
def test_what_is_not_reached_is_said_before_anything_is_read(loaded, method, says):
    with pytest.warns(UserWarning, match=says):
        generate(*loaded, PROMPT, method=method, max_new_tokens=8)


def test_what_is_applied_already_counts(loaded):
    with apply(loaded.model, "sinks:window_size=16"):
        pieces = generate(*loaded, PROMPT)
        written = "".join(next(pieces) for _ in range(300))
    assert len(written) >= 300, "no end: memory is bounded"
    pieces.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"prompt": " "}, r"the prompt is empty"),
        ({"prompt": torch.tensor([[1]])}, r"the prompt is a text, not a Tensor"),
        ({"top_p": 0.5}, r"top_p has no effect on greedy decoding"),
        ({"temperature": 1, "seed": 2**63}, r"seed=9223372036854775808 must be at least 0 and below"),
        ({"max_new_tokens": 0}, r"max_new_tokens=0 must be a whole number, at least 1"),
        ({"max_new_tokens": 1.5}, r"max_new_tokens=1.5 must be a whole number"),
        ({"chunk_size": 0}, r"chunk_size=0 must be a whole number, at least 1"),
        ({"method": "yarn:factor=auto+sinks:window_size=16"}, r"or without settings, has to know where the text ends"),
        ({"method": ["yarn:factor=auto", "sinks:window_size=16"]}, r"has to know where the text ends"),
        ({"method": "yarn+sinks:window_size=16"}, r"has to know where the text ends"),
    ],
)
def test_wrong_arguments_are_refused_at_once(loaded, arguments, says):
    with pytest.raises(InputError, match=says):
        generate(*loaded, **{"prompt": PROMPT, **arguments})


def test_a_model_is_what_is_needed(loaded):
    with pytest.raises(InputError, match=r"a loaded transformers model is needed, not the name 'nano'; model, tokenizer = longreach.load"):
        generate("nano", loaded.tokenizer, PROMPT)
    loaded.model.train()
    with pytest.raises(InputError, match=r"the model is in training mode"):
        generate(*loaded, PROMPT)
    loaded.model.eval()


def test_one_method_at_a_time(loaded):
    pieces = generate(*loaded, PROMPT, method="yarn", max_new_tokens=16)
    with apply(loaded.model, "log_n"), pytest.raises(UnsupportedError, match=r"yarn:factor=1.25 cannot be used with .*log_n is applied"):
        generate(*loaded, PROMPT, method="yarn", max_new_tokens=16)
    with apply(loaded.model, "log_n"), pytest.raises(LongreachError, match=r"was to be written under no method, and .* under log_n by now"):
        next(pieces)


@pytest.mark.parametrize(
    ("spec", "reach"),
    [
        ("yarn:factor=1.5", 192),
        ("ntk:factor=2", 256),
        ("self_extend:neighbours=16,group=4", 464),
        ("sinks:window_size=16", None),
        ("", 128),
    ],
)
def test_how_far_a_model_reads_under_what_is_applied(loaded, spec, reach):
    with apply(loaded.model, spec, warn=False):
        assert longest(loaded.model) == reach
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            generate(*loaded, "x" * 130, max_new_tokens=120)
    said = [str(each.message) for each in caught if "go beyond the" in str(each.message)]
    assert [f"go beyond the {reach} that" in each for each in said] == [True] * (reach is not None and reach < 250)


def test_a_method_without_settings_leaves_a_short_text_alone(loaded):
    short = "once upon"
    assert "".join(generate(*loaded, short, method="yarn", max_new_tokens=8)) == "".join(generate(*loaded, short, max_new_tokens=8))


def test_what_is_applied_is_seen_through_a_wrapper(loaded):
    wrapped = add_adapters(copy.deepcopy(loaded.model), rank=2, alpha=4).eval()
    with apply(wrapped, "yarn:factor=2"):
        assert applied(wrapped) == "yarn:factor=2"
        assert "".join(generate(wrapped, loaded.tokenizer, PROMPT, max_new_tokens=8)) == greedy(loaded, "yarn:factor=2", 8)

import warnings

import pytest

from longreach.checkpoints.checkpoint import load
from longreach.core.errors import InputError
from longreach.decoding.generation import prompt_ids, text, tokens
from longreach.decoding.writing import generate
from longreach.engine.apply import applied, apply
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


def test_wrong_arguments_are_refused_at_once(loaded):
    with pytest.raises(InputError, match=r"the prompt is empty"):
        generate(*loaded, " ")
    with pytest.raises(InputError, match=r"top_p has no effect on greedy decoding"):
        generate(*loaded, PROMPT, top_p=0.5)
    with pytest.raises(InputError, match=r"factor=auto has to know where the text ends"):
        generate(*loaded, PROMPT, method="yarn:factor=auto+sinks:window_size=16")

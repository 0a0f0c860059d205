import json
import math
import re

import pytest
import torch

from longreach.attention.bias.rpe_family import RpeFamily
from longreach.cli.main import run
from longreach.testing.models import tiny_learned, tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with the model `tiny` (trained window 128), the encoder `bert` and the texts book.txt and short.txt."""
    tiny_model(vocab_size=VOCABULARY, num_hidden_layers=1).save_pretrained(tmp_path / "tiny")
    tiny_learned("bert").save_pretrained(tmp_path / "bert")
    for name in ("tiny", "bert"):
        tokenizer().save_pretrained(tmp_path / name)
    (tmp_path / "book.txt").write_text(real_text(), encoding="utf-8")
    (tmp_path / "short.txt").write_text(real_text()[:500], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys, *arguments):
    """What a run that works prints."""
    assert run(["reach", *arguments]) == 0
    return capsys.readouterr().out


def test_what_converges_and_what_does_not(capsys):
    assert printed(capsys, "--of", "rpe_family:series=type1") == (
        "rpe_family:series=type1, one layer\n"
        "Converges: the sum of all weights is finite, which suffices for extrapolation.\n"
        "Theoretical receptive field: 61 tokens for 99 % of the weights.\n"
    )
    out = printed(capsys, "--of", "rpe_family:series=harmonic", "--epsilon", "0.2")
    assert "Diverges: " in out
    assert "Theoretical receptive field: without end for 80 % of the weights." in out
    assert "Undecided: " in printed(capsys, "--of", "rpe_family:series=bertrand,exponent=1")
    assert "about 4,605,171 tokens" in printed(capsys, "--of", "rpe_family:series=exponential,rate=0.000001")


def test_heads_that_differ_are_told_one_by_one(capsys, monkeypatch):
    def bias(self, distance, layer):
        return -distance.float() / torch.tensor([2.0, 20.0, math.inf])[:, None]

    monkeypatch.setattr(RpeFamily, "bias", bias)
    assert printed(capsys, "--of", "rpe_family:series=type1").splitlines()[1:] == [
        "Converges in 2 of 3 heads; there the sum of all weights is finite.",
        "  head   0  converges: 10 tokens",
        "  head   1  converges: 93 tokens",
        "  head   2  diverges: without end",
        "Theoretical receptive field for 99 % of the weights: least 10 tokens, median 93 tokens, most without end.",
    ]


def test_a_window_is_told_as_it_is(capsys):
    assert "the nearest 16 tokens are seen, the query's own included, and the first 4 at any distance; all others never" in printed(
        capsys, "--of", "lm_infinite:num_sinks=4,window_size=16"
    )


def test_json_for_programs(capsys):
    found = json.loads(printed(capsys, "--of", "rpe_family:series=harmonic", "--num-heads", "2", "--json"))
    assert found["heads"] == [{"converges": False, "tokens": None, "exact": True}] * 2
    assert (found["window"], found["sinks"], found["epsilon"]) == (None, 0, 0.01)


@pytest.mark.usefixtures("folder")
def test_a_model_is_measured_plain_and_under_the_method(capsys):
    settings = ("--model", "tiny", "--text", "book.txt", "--samples", "2", "--length", "100")
    found = json.loads(printed(capsys, *settings, "--of", "lm_infinite:num_sinks=0,window_size=12", "--epsilon", "0.000001", "--json"))
    plain, under = found["measured"]
    assert (plain["method"], under["method"]) == ("", "lm_infinite:num_sinks=0,window_size=12")
    assert (plain["tokens"], under["tokens"]) == (99, 12)  # the first of 100 tokens is left out
    assert found["theory"]["window"] == 12
    out = printed(capsys, *settings, "--of", "yarn:factor=2")
    assert out.startswith("yarn:factor=2 neither biases logits by the distance nor limits what is seen")
    assert "tiny, 100 tokens read, 2 texts, the first token left out" in out
    assert re.search(r"Measured receptive field: the nearest \d+ tokens hold 99 % of the gradient \(each text by itself: \d+ ± \d+;", out)
    assert "Measured receptive field under yarn:factor=2: " in out
    assert "under" not in printed(capsys, *settings)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to look at; give a method with --of SPEC, a model with --model MODEL, or both"),
        (["--of", "rpe_famly:series=type1"], "unknown method 'rpe_famly'; did you mean rpe_family"),
        (["--of", "rpe_family:series=type3"], "rpe_family: series=type3 is none of exponential, "),
        (["--of", "rpe_family:series=type1,rate=2"], "rpe_family: rate has no effect with series=type1"),
        (["--of", "yarn:factor=8"], "yarn:factor=8 neither biases .* give --model MODEL to measure"),
        (["--of", "full"], "full neither biases "),
        (["--of", "rpe_family:series=type1", "--epsilon", "1"], "--epsilon 1 must be between 0 and 1"),
        (["--of", "rpe_family:series=type1", "--length", "64"], "--length has no effect without --model"),
        (["--of", "rpe_family:series=type1", "--text", "book.txt"], "--text has no effect without --model"),
        (["--of", "rpe_family:series=type1", "--allow-pickle"], "--allow-pickle has no effect without --model"),
        (["--model", "tiny", "--num-heads", "4"], "--num-heads has no effect with --model"),
        (["--model", "tiny", "--length", "1"], "--length 1: too short to hold a token of text"),
        (["--model", "tiny", "--text", "short.txt"], r"the text is too short: it has \d+ tokens"),
        (["--model", "tiny", "--text", "none.txt"], r"cannot read none\.txt"),
        (["--model", "bert"], "bert is not a causal language model"),
        (["--model", "./nowhere"], "no such folder"),
        (["--model", "tiny", "--of", "loss"], "loss cannot be used with LlamaForCausalLM"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_does_not_fit_is_one_line(arguments, says, capsys):
    assert run(["reach", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: .*{says}.*", err.splitlines()[-1])


@pytest.mark.usefixtures("folder")
def test_a_table_of_positions_ends_where_it_ends(folder, capsys):
    tiny_learned("gpt2", vocab_size=VOCABULARY).save_pretrained(folder / "tiny")
    assert run(["reach", "--model", "tiny", "--length", "200"]) == 2
    assert "cannot read beyond 128 tokens: its table of positions ends there; give --length 128 at most" in capsys.readouterr().err

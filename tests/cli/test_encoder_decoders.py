"""Which verbs take an encoder-decoder, and what the others say of it."""

import json
import shutil

import pytest

from longreach.checkpoints.checkpoint import load, save
from longreach.cli.main import run
from longreach.decoding.writing import generate
from longreach.testing.models import tiny_biased
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

pytestmark = pytest.mark.usefixtures("no_bars")
QUICK = ("--to", "128", "--text", "book.txt", "--windows", "1")
LONG = ("--file", "prompt.txt", "--max-new-tokens", "6")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    place = tmp_path_factory.mktemp("checkpoint")
    tiny_biased(vocab_size=VOCABULARY, window=32, eos_token_id=None).save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


@pytest.fixture
def folder(checkpoint, tmp_path, monkeypatch):
    """A folder to work in, with the model `t5`, the text book.txt and a prompt of more than 100 tokens."""
    shutil.copytree(checkpoint, tmp_path / "t5")
    (tmp_path / "book.txt").write_text(real_text()[:10_000], encoding="utf-8")
    (tmp_path / "prompt.txt").write_text(real_text()[:400], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [["measure", "t5"], ["stretch", "t5", "--to", "64", "--out", "far"], ["tune", "t5", "--to", "64", "--data", ".", "--out", "far"]],
)
@pytest.mark.usefixtures("folder")
def test_verbs_for_decoders_refuse_in_one_line(arguments, capsys):
    assert run(arguments) == 2
    needs = "and this needs a causal language model; generate takes both"
    out, err = capsys.readouterr()
    said = [line for line in err.splitlines() if not line.endswith(" ...")]  # tune names its phases
    assert (out, said) == ("", [f"error: t5 is an encoder-decoder (T5ForConditionalGeneration), {needs}"])


@pytest.mark.usefixtures("folder")
def test_the_doctor_says_what_can_be_done(capsys):
    assert run(["doctor", "t5", "--json"]) == 0
    findings = {one["check"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert "longreach fit MODEL attention_alignment --to LENGTH" in findings["positions"]["remedy"]
    assert "is an encoder-decoder" in findings["weights"]["what"]
    assert findings["weights"]["severity"] == "note"


def test_from_the_model_to_a_checkpoint_that_does_not_need_the_file(folder, capsys):
    assert run(["fit", "t5", "attention_alignment:strategy=entropy", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "entropy at 32" in out
    assert "evaluations on 1 window of text; the table is of as many others. At 128 tokens the entropy is" in out
    method = "attention_alignment:file=t5-attention_alignment-128.json"
    assert f"Use it: longreach generate t5 --method {method} --file FILE\n" in out
    assert run(["generate", "t5", *LONG]) == 0
    plain = capsys.readouterr().out
    assert run(["generate", "t5", *LONG, "--method", method]) == 0
    aligned, err = capsys.readouterr()
    assert err == ""
    assert aligned != plain
    save(*load("t5"), "far", method=method, target=128)
    (folder / "t5-attention_alignment-128.json").unlink()
    assert run(["generate", "far", *LONG]) == 0
    out, err = capsys.readouterr()
    assert out == aligned
    model, words = load("far")
    with pytest.warns(UserWarning, match=r"go beyond the 128 that far is made for"):
        assert "".join(generate(model, words, (folder / "prompt.txt").read_text(), max_new_tokens=6)) + "\n" == aligned


def test_beyond_the_length_it_was_saved_for_there_is_a_warning(folder, capsys):
    save(*load("t5"), "far", method="attention_alignment:temperature=0.7", target=40)
    assert run(["generate", "far", *LONG]) == 0
    assert "go beyond the 40 that far is made for" in (err := capsys.readouterr().err)
    assert "`longreach fit far attention_alignment --to " in err


@pytest.mark.usefixtures("folder")
def test_a_long_prompt_is_written_from_in_pieces(capsys):
    assert run(["generate", "t5", *LONG]) == 0
    plain, err = capsys.readouterr()
    assert "and --method unlimiformer reads on as it is" in err
    assert run(["generate", "t5", *LONG, "--method", "unlimiformer"]) == 0
    retrieved, err = capsys.readouterr()
    assert err == ""
    assert retrieved != plain


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "t5", *LONG, "--chunk-size", "8"], "--chunk-size has no effect on t5: an encoder reads its text whole"),
        (["generate", "t5", *LONG, "--method", "sinks:window_size=16"], "it is an encoder-decoder"),
        (["generate", "t5", *LONG, "--method", "yarn:factor=auto"], "no rotary position embedding"),
        (["generate", "t5", *LONG, "--method", "attention_alignment"], "attention_alignment: give file=FITTED.json"),
        (["generate", "t5", *LONG, "--method", "attention_alignment:file=none.json"], "the file cannot be read"),
        (["fit", "t5", "longrope", *QUICK], "longrope cannot be used with t5: it has no rotary position embedding"),
        (["fit", "t5", "attention_alignment", *QUICK, "--batch-size", "2"], "have no effect on attention_alignment"),
        (["fit", "nano", "attention_alignment", "--to", "1024"], "attention_alignment cannot be used with LlamaForCausalLM"),
        (["measure", "nano", "--to", "1024", "--method", "attention_alignment:temperature=0.5"], "no encoder with a learned relative bias"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_bad_input_is_one_line(arguments, says, capsys):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert says in err, err
    assert (out, err.count("\n")) == ("", 1)

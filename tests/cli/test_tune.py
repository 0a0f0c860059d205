import json
import subprocess
import sys

import pytest
from transformers import BertConfig, BertForMaskedLM

from longreach.checkpoints.record import read_record
from longreach.cli.main import run
from tests.evaluation.samples import VOCABULARY, tokenizer

QUICK = ("--to", "256", "--data", "books", "--out", "far", "--text", "held.txt", "--steps", "2", "--batch-size", "2", "--no-measure")


@pytest.fixture
def folder(to_tune):
    (to_tune / "books" / "cover.png").write_bytes(b"\x89PNG\xff\x00")
    return to_tune


def test_from_the_model_to_the_checkpoint(folder, capsys):
    assert run(["tune", "tiny", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "Not read: 1 file (cover.png is no UTF-8 text)." in out
    assert "parameters on 256 tokens under yarn:factor=4, positions by pose, in 2 steps of 64-token sequences." in out
    assert "bar +1 %" in out
    assert "Saved: far (transformers loads it without longreach; checked, logits differ by at most" in out
    assert out.endswith("Loss curve: far-run/loss.png\n")
    record = read_record(folder / "far")
    assert (record.method, record.exported, record.target, record.trained_window) == ("yarn:factor=4", True, 256, 64)
    assert len((folder / "far-run" / "loss.jsonl").read_text().splitlines()) == 2
    # The same command again trains nothing, and says the same to programs.
    assert run(["tune", "tiny", *QUICK, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["resumed_at"], result["extended"], result["saved"]["exported"]) == (2, True, True)
    assert result["skipped_files"] == ["cover.png is no UTF-8 text"]
    assert run(["tune", "tiny", *QUICK, "--seed", "1"]) == 2
    assert "far-run holds a run with other settings (seed=0)" in capsys.readouterr().err


def test_a_model_that_lost_its_window_is_not_called_extended(folder, capsys):
    command = ["tune", "tiny", *QUICK, "--full", "--lr", "0.3"]
    assert run(command) == 1
    out = capsys.readouterr().out
    assert "The model lost too much at short lengths to be called extended" in out
    assert "Nothing was saved to far; --force saves it all the same." in out
    assert not (folder / "far").exists()
    assert run([*command, "--force"]) == 0
    assert "lost too much" in capsys.readouterr().out
    assert read_record(folder / "far").target == 256


def test_a_recipe_gives_the_settings_and_options_win(folder, capsys):
    (folder / "mine.py").write_text(
        "from longreach.training.plan import TuneConfig\n"
        "def recipe(rope, target):\n"
        "    return TuneConfig(target=target, sampler='randomized', method=f'linear:factor={target / rope.trained_window}', rank=2)\n"
    )
    assert run(["tune", "tiny", *QUICK, "--recipe", "mine.py", "--sampler", "segmented", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["method"], result["sampler"]) == ("linear:factor=4", "segmented")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "64"], "64 tokens are within the trained window of 64"),
        (["--to", "far"], "not a length: 'far'"),
        (["--method", "linear:factor=0.5"], "factor=0.5 must be at least 1"),
        (["--method", "sinks:window_size=8"], "is a method of the kind 'cache'"),
        (["--sampler", "posse"], "unknown method 'posse'; did you mean pose"),
        (["--targets", "query"], "LoRA target 'query' matches no linear layer"),
        (["--data", "none"], "none is not a folder"),
        (["--data", "blank"], "blank holds no text"),
        (["--data", "short"], "too little text to train on: pose takes sequences from 257 tokens"),
        (["--out", "tiny"], "tiny exists and is not a longreach checkpoint"),
        (["--out", "held.txt/far"], "cannot be written to"),
        (["--work", "far/run"], "must lie beside each other"),
        (["--work", "notes"], "notes is no tuning run (it holds mine.txt)"),
        (["--mix", "long"], "--mix long: write long=0.5"),
        (["--mix", "long=1,long=2"], "a source is named twice"),
        (["--mix", "prose=1"], "unknown source 'prose'"),
        (["--full", "--rank", "4"], "--rank has no effect with --full"),
        (["--train", "heads"], "cannot train 'heads'"),
        (["--recipe", "none.py"], "no such recipe: none.py"),
        (["--recipe", "held.txt"], "held.txt is no Python file"),
        (["--recipe", "empty.py"], "empty.py has no function recipe"),
        (["--seq-len", "512"], "sequences of 512 tokens; give 2 to 256"),
    ],
)
def test_bad_input_is_one_line(arguments, says, folder, capsys):
    for name in ("blank", "short"):
        (folder / name).mkdir()
    (folder / "short" / "one.txt").write_text("One day the cat sat on the mat.")
    (folder / "empty.py").write_text("")
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("mine")
    assert run(["tune", "tiny", *QUICK, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert says in last
    assert not (folder / "far").exists()
    assert [file.name for file in (folder / "notes").iterdir()] == ["mine.txt"]
    assert not (folder / "far-run" / "run.json").exists(), "the right command would be refused as another run"


@pytest.mark.usefixtures("folder")
def test_too_little_held_out_text_is_refused(capsys):
    assert run(["tune", "tiny", "--to", "256", "--data", "books", "--out", "far", "--text", "books/cover.png"]) == 2
    assert "books/cover.png is not UTF-8 text" in capsys.readouterr().err
    with open("few.txt", "w", encoding="utf-8") as file:
        file.write("One day the cat sat on the mat.")
    assert run(["tune", "tiny", "--to", "256", "--data", "books", "--out", "far", "--text", "few.txt"]) == 2
    assert "too little held-out text: it has" in capsys.readouterr().err


def test_an_encoder_is_refused(folder, capsys):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16, "vocab_size": VOCABULARY}
    BertForMaskedLM(BertConfig(**sizes)).save_pretrained(folder / "bert")
    tokenizer().save_pretrained(folder / "bert")
    assert run(["tune", "bert", *QUICK]) == 2
    assert "bert is not a causal language model (it is BertForMaskedLM)" in capsys.readouterr().err


def test_a_sampler_is_nothing_to_stretch_with(folder, capsys):
    assert run(["stretch", "tiny", "--to", "256", "--text", "held.txt", "--methods", "pose"]) == 2
    assert "pose cannot be used with LlamaForCausalLM: it is a method of the kind 'sampler'" in capsys.readouterr().err


def test_the_verb_is_light():
    code = "import sys, longreach.cli.tune; print('torch' in sys.modules, 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False False\n"

import json
import shutil

import pytest

from longreach.checkpoints.record import read_record
from longreach.cli import fit
from longreach.cli.main import run
from longreach.stretching import fit as fitting
from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

QUICK = ("--to", "64", "--text", "book.txt", "--windows", "1")
SEARCH = "longrope:population=4,iterations=1,mutations=1,crossovers=1"

pytestmark = pytest.mark.usefixtures("no_bars")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The checkpoint of a random model with a trained window of 32 tokens."""
    place = tmp_path_factory.mktemp("checkpoint")
    tiny_model(vocab_size=VOCABULARY, max_position_embeddings=32, num_hidden_layers=1).save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


@pytest.fixture
def folder(checkpoint, tmp_path, monkeypatch):
    """A folder to work in, with the model `tiny` and the text book.txt."""
    shutil.copytree(checkpoint, tmp_path / "tiny")
    (tmp_path / "book.txt").write_text(real_text()[:10_000], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_the_model_to_a_checkpoint_that_does_not_need_the_file(folder, capsys):
    assert run(["fit", "tiny", SEARCH, *QUICK]) == 0
    out, err = capsys.readouterr()
    for words in ("model as it is", "linear:factor=2", "yarn:factor=2", "Fitted with 6 evaluations on 1 window of text"):
        assert words in out
    assert "longreach stretch tiny --to 64 --methods longrope:file=tiny-longrope-64.json\n" in out
    assert out.endswith("Fitted: tiny-longrope-64.json\nRows: longreach-results/rows/tiny-fit.jsonl\n")
    assert err == ""
    written = json.loads((folder / "tiny-longrope-64.json").read_text())
    assert (written["model"], written["target"], written["seed"], written["windows"]) == ("tiny", 64, 0, 1)
    lines = (folder / "longreach-results/rows" / "tiny-fit.jsonl").read_text()
    assert run(["fit", "tiny", SEARCH, *QUICK, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == written
    assert (folder / "longreach-results/rows" / "tiny-fit.jsonl").read_text() == lines
    stretch = ("--to", "64", "--text", "book.txt", "--windows", "2", "--for", "streaming", "--out", "far", "--force")
    assert run(["stretch", "tiny", *stretch, "--methods", "longrope:file=tiny-longrope-64.json"]) == 0
    assert "checked in plain transformers, logits differ by at most" in capsys.readouterr().out
    (folder / "tiny-longrope-64.json").unlink()
    assert read_record(folder / "far").fitted
    assert run(["generate", "far", "--prompt", "once", "--max-new-tokens", "2"]) == 0


def test_a_stopped_fit_says_where_its_rows_are(folder, monkeypatch, capsys):
    def stopped(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "fit", stopped)
    assert run(["fit", "tiny", "longrope", *QUICK]) == 130
    assert (
        "What was evaluated is kept in longreach-results/rows/tiny-fit.jsonl; the same command goes on from there."
        in capsys.readouterr().err
    )
    assert not (folder / "tiny-longrope-64.json").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["longrope", "--to", "far"], "not a length: 'far'"),
        (["longrope", "--to", "32"], "nothing to fit: 32 tokens are within the trained window of 32"),
        (["longrope", "--to", "1M", "--text", "book.txt"], "the text is too short: it has"),
        (["longrope", "--to", "64", "--text", "missing.txt"], "cannot read missing.txt"),
        (["longrope", "--to", "64", "--out", "book.txt"], "book.txt exists and is not a file of `longreach fit` or `longreach heads`"),
        (["longrope", "--to", "64", "--out", "none/a.json"], "none/a.json cannot be written: none is not a folder"),
        (["longrope", "--to", "64", "--out", "a,b.json"], "a,b.json cannot be named in a spec, where , has a meaning"),
        (["longrope", "--to", "64", "--budget", "soon"], "--budget soon: write evaluations as 200, or time as 90s, 20m or 2h"),
        (["longrope", "--to", "64", "--budget", "0"], "--budget 0: write evaluations"),
        (["longrope", "--to", "64", "--windows", "0"], "'--windows': Input should be greater than or equal to 1"),
        (["longrope:on=none.json", "--to", "64"], "longrope: on=none.json: the file cannot be read"),
        (["longrope:short=maybe", "--to", "64"], "short=maybe is not true or false"),
        (["yarn", "--to", "64"], "yarn has nothing to fit: it is ready to use; methods that are fitted: "),
        (["yran", "--to", "64"], "did you mean yarn"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_bad_input_is_one_line(arguments, says, capsys):
    assert run(["fit", "tiny", *arguments]) == 2
    out, err = capsys.readouterr()
    assert says in err, err
    assert (out, err.count("\n")) == ("", 1)


def test_a_fit_that_does_not_help_is_not_recommended():
    found = {"metric": "loss", "results": [{"beyond": 3.0}, {"beyond": 2.9}, {"beyond": 2.8}]}
    assert fit._helps(found)
    found["results"][1]["beyond"] = 2.7
    assert not fit._helps(found)

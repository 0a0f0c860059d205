import json
import re

import pytest

from longreach.cli.main import run
from longreach.testing.models import tiny_learned, tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

QUICK = ("--text", "book.txt", "--windows", "2", "--samples", "1", "--depths", "0,1", "--draws", "2")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with the model `tiny` (3 layers of 4 heads, trained window 128), the encoder `bert`, and texts."""
    tiny_model(vocab_size=VOCABULARY).save_pretrained(tmp_path / "tiny")
    tiny_learned("bert").save_pretrained(tmp_path / "bert")
    tiny_learned("gpt2", vocab_size=VOCABULARY).save_pretrained(tmp_path / "gpt2")
    for name in ("tiny", "bert", "gpt2"):
        tokenizer().save_pretrained(tmp_path / name)
    (tmp_path / "book.txt").write_text(real_text(), encoding="utf-8")
    (tmp_path / "short.txt").write_text(real_text()[:200], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_json_for_programs_and_rows_for_the_next_run(folder, capsys):
    found = []
    for _ in range(2):
        assert run(["heads", "tiny", *QUICK, "--top", "2", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
        lines = (folder / "longreach-results/rows" / "tiny-heads.jsonl").read_text().splitlines()
        assert len(lines) == 4 * (2 * 2 + 2 * 2)
    first, again = found
    assert first == again
    assert (first["model"], first["method"], first["rows_file"]) == ("tiny", "", "longreach-results/rows/tiny-heads.jsonl")
    assert len(first["heads"]) == 12
    assert [head["score"] for head in first["heads"]] == sorted((head["score"] for head in first["heads"]), reverse=True)
    ablation = first["ablation"]
    assert ablation["chosen"] == [[head["layer"], head["head"]] for head in first["heads"][:2]]
    assert [draw["seed"] for draw in ablation["draws"]] == [0, 1]
    assert all(head not in ablation["chosen"] for draw in ablation["draws"] for head in draw["heads"])
    assert [(cell["task"], cell["metric"], cell["length"]) for cell in ablation["cells"]] == [
        ("loss", "loss", 64), ("loss", "loss", 128), ("needle", "likelihood", 128), ("needle", "generation", 128)
    ]  # fmt: skip


@pytest.mark.usefixtures("folder")
def test_tables_for_people(capsys):
    assert run(["heads", "tiny", *QUICK, "--method", "yarn:factor=auto", "--to", "256", "--tasks", "loss", "--same-layers"]) == 2
    assert "samples has no effect on loss" in capsys.readouterr().err
    quick = ("--text", "book.txt", "--windows", "2", "--draws", "2", "--tasks", "loss", "--top", "1")
    assert run(["heads", "tiny", *quick, "--method", "yarn:factor=auto", "--to", "256", "--same-layers"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"layer +head +score +far", out)
    assert re.search(r"[012] +[0-3] +[+-]\d\.\d\d +\d\.\d\d", out)
    assert "The first 10 of 12 heads." in out
    assert re.search(r"loss 129-256 +\d+\.\d{3} +[+-]\d+\.\d{3} ± \d+\.\d{3} +[+-]\d+\.\d{3} ± \d+\.\d{3}", out)
    assert "against 2 draws of 1 other heads of the same layers" in out
    assert out.rstrip().endswith("Rows: longreach-results/rows/tiny-heads.jsonl")


def test_heads_that_retrieve_are_written_for_duo(folder, capsys):
    assert run(["heads", "tiny", "--text", "book.txt", "--samples", "2", "--save", "heads.json"]) == 0
    out = capsys.readouterr().out
    assert "The first 6 of 6 key-value heads, by 2 facts in texts of 128 tokens." in out
    assert out.endswith("Use it: --method duo:file=heads.json\n")
    scores = json.loads((folder / "heads.json").read_text())["fitted"]["scores"]
    assert [len(row) for row in scores] == [2, 2, 2]
    assert run(["generate", "tiny", "--prompt", "Once", "--max-new-tokens", "2", "--method", "duo:file=heads.json"]) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tiny", "--save", "heads.json", "--top", "2"], "--top has no effect with --save"),
        (["tiny", "--save", "heads.json", "--json"], "--json has no effect with --save"),
        (["tiny", "--save", "book.txt"], "book.txt exists and is not a file of `longreach fit` or `longreach heads`"),
        (["tiny", "--save", "heads.json", "--text", "short.txt"], r"the text is too short: it has \d+ tokens"),
        (["none"], "none is not a folder here"),
        (["bert"], "bert is not a causal language model"),
        (["gpt2"], "it has no rotary embedding"),
        (["tiny", "--top", "7"], "--top 7: no 7 other heads are left to compare with; ablate fewer"),
        (["tiny", "--top", "0"], "--top"),
        (["tiny", "--draws", "1"], "--draws"),
        (["tiny", "--to", "64"], "--to 64 is below the trained window of 128 tokens"),
        (["tiny", "--text", "short.txt"], r"the text is too short: it has \d+ tokens"),
        (["tiny", "--windows", "0"], "'--windows'"),
        (["tiny", "--method", "yarm:factor=2"], "unknown method 'yarm'"),
        (
            ["tiny", "--method", "self_extend:neighbours=8,group=2"],
            "self_extend:neighbours=8,group=2 cannot be used with .* a positions method",
        ),
        (["tiny", "--tasks", "los"], "unknown task 'los'; did you mean loss"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_does_not_fit_is_one_line(arguments, says, capsys):
    assert run(["heads", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: .*{says}.*", err.splitlines()[-1])

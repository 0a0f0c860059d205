import json
import math

import pytest

from longreach.cli.main import run
from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

TEXT = 'Say "naïve" — and <b>that</b> & more:\n\n' + real_text()[:500]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    tiny_model(vocab_size=VOCABULARY).save_pretrained(tmp_path / "tiny")
    tokenizer().save_pretrained(tmp_path / "tiny")
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


QUICK = ("context-probe", "tiny", "--text", "text.txt", "--tokens", "40", "--context", "6")


def test_numbers_for_programs(folder, capsys):
    assert run([*QUICK, "--method", "yarn:factor=4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["method"], len(found["tokens"])) == ("tiny", "yarn:factor=4", 40)
    assert TEXT.startswith("".join(found["tokens"]).rstrip("\ufffd"))
    assert len(found["losses"]) == 40
    assert all(len(row) == 7 for row in found["importances"])
    assert [value is None for value in found["losses"][2]] == [False] * 3 + [True] * 4, "BOS is the context of length 0"
    assert math.isclose(sum(found["importances"][30][1:]), found["divergences"][30][0], abs_tol=1e-4)
    assert not (folder / "longreach-results").exists()


def test_a_page_that_needs_nothing_else(folder, capsys):
    assert run([*QUICK, "--out", "page.html"]) == 0
    assert "Page: page.html" in capsys.readouterr().out
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert page.count('class="token"') == 40
    assert "<b>that" not in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert len(data["losses"]) == len(data["importances"]) == 40
    assert data["longest"] == 6
    assert "longreach context-probe tiny --tokens 40 --context 6 --text text.txt" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "1"], "fewer than two tokens"),
        (["--context", "0"], "not a length"),
        (["--method", "yarn:factor=0"], "factor=0"),
        (["--text", "none.txt"], "none.txt"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments, message, capsys):
    assert run([*QUICK, *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]

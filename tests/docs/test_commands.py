"""Every command of the README, the first page and the guides runs, in the order of the page, on tiny models and short lengths."""

import io
import re
import shlex
import sys
from pathlib import Path

import pytest

from longreach.checkpoints import places
from longreach.cli.main import run
from longreach.testing.models import tiny_learned, tiny_model
from tests.evaluation.preferences.simulated import entries, simulated, written
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "index.md", *sorted((ROOT / "docs").glob("guide-*.md"))]
WINDOW = 64

_TRAINING = ["--batch-size", "2"]
_MEASURING = ["--windows", "2", "--samples", "1", "--depths", "0.5", "--text", "held.txt"]
_ASKING = ["--limit", "2", "--text", "held.txt"]
SMALLER = {  # what makes a verb short here; --force: a random model passes no bar
    "doctor": [], "reach": [], "methods": [], "plan": ["--method", "sinks:window_size=60"],
    "measure": _MEASURING, "heads": ["--windows", "2", "--text", "held.txt", "--tasks", "loss"],
    "stretch": [*_MEASURING, "--force"],
    "fit": ["--windows", "1", "--text", "held.txt", "--budget", "2"],
    "tune": [*_TRAINING, "--steps", "2", "--force", "--text", "held.txt"],
    "generate": ["--max-new-tokens", "4"], "chat": ["--max-new-tokens", "4"],
    "eval": _ASKING, "card": [*_ASKING, "--lengths", "400:800"],
    "compare": [*_ASKING, "--tasks", "passkey", "--lengths", "300"], "parity": [],
    "read": ["--window", "2k", "--max-new-tokens", "4"],
    "context-probe": ["--tokens", "12", "--context", "4"],
    "debias": [], "library": [], "library ask": ["--max-new-tokens", "4"],
    "write": ["--window", "2000"],
}  # fmt: skip


def commands(page: Path) -> list[list[str]]:
    """The longreach commands in the shell blocks of a page."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words[1:] for words in lines if words[:1] == ["longreach"]]


def shorter(words: list[str]) -> list[str]:
    """The command at four windows, with few steps and texts."""
    line = re.sub(r"--(to|context) \w+", rf"--\1 {4 * WINDOW}", shlex.join(words)).replace("--tune 300", "--tune 2")
    verb, *rest = shlex.split(re.sub(r"\d+ words", "8 words", line))
    if verb == "stretch" and "--methods" not in rest:
        rest += ["--methods", "yarn"]
    return [verb, *rest, *SMALLER.get(" ".join([verb, *rest[:1]]), SMALLER[verb])]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with what the pages speak of: nano (a tiny one), GPT2, BOOKS, CONTRIBUTING.md, annotations.json, other.json,
    questions.jsonl.
    """
    for name, model in (
        ("package/nano", tiny_model(vocab_size=VOCABULARY, max_position_embeddings=WINDOW, num_hidden_layers=2)),
        ("GPT2", tiny_learned("gpt2", window=WINDOW, vocab_size=VOCABULARY)),
    ):
        model.save_pretrained(tmp_path / name)
        tokenizer().save_pretrained(tmp_path / name)
    (tmp_path / "BOOKS").mkdir()
    (tmp_path / "BOOKS" / "book.txt").write_text(real_text()[:60_000], encoding="utf-8")
    (tmp_path / "held.txt").write_text(real_text()[100_000:130_000], encoding="utf-8")
    for name, quality in (("annotations", 0.4), ("other", -0.2)):
        written(tmp_path / f"{name}.json", entries(simulated(1, 60, quality=quality, effect=1.0, extra=0.5, name=name)))
    (tmp_path / "questions.jsonl").write_text('{"text": "The mill burnt down.", "question": "What burnt down?", "answer": "the mill"}\n')
    for name in ("CONTRIBUTING.md", "README.md"):
        (tmp_path / name).write_text(real_text()[:400], encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello\nand?\n")))
    monkeypatch.setattr(places, "files", lambda package: tmp_path / "package")
    monkeypatch.setenv("LONGREACH_LIBRARY", str(tmp_path / "library"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("place", "warm_reader")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_runs(page, capsys):
    found = commands(page)
    assert found
    for words in found:
        code = run(shorter(words))
        assert code == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"

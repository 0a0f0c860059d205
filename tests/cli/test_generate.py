import io
import os
import signal
import subprocess
import sys
from functools import partial

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from longreach.checkpoints.checkpoint import load, save
from longreach.cli.main import run
from longreach.decoding import generation, writing
from longreach.decoding.generation import prompt_ids
from longreach.decoding.writing import generate
from tests.checkpoints.folders import TEMPLATE, byte_tokenizer, write_folder

PROMPT = "once upon a time"

pytestmark = pytest.mark.usefixtures("no_bars")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that never ends by itself."""
    return str(write_folder(tmp_path_factory.mktemp("generate") / "tiny", eos_token_id=None))


def expected(folder, most, prompt=PROMPT, spec=""):
    model, tokenizer = load(folder)
    return "".join(generate(model, tokenizer, prompt, method=spec, max_new_tokens=most)) + "\n"


@pytest.mark.parametrize("how", ["prompt", "file", "stdin"])
def test_the_prompt_comes_from_one_place(folder, how, tmp_path, capsys, monkeypatch):
    (tmp_path / "prompt.txt").write_text(PROMPT + " é", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((PROMPT + " é").encode())))
    given = {"prompt": ["--prompt", PROMPT + " é"], "file": ["--file", str(tmp_path / "prompt.txt")], "stdin": ["-"]}[how]
    assert run(["generate", folder, *given, "--max-new-tokens", "12"]) == 0
    assert capsys.readouterr() == (expected(folder, 12, PROMPT + " é"), "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "error: give the prompt in one place: --prompt TEXT, --file FILE, or - for standard input\n"),
        (["-", "--prompt", "a"], "error: give the prompt in one place"),
        (["--file", "x", "--prompt", "a"], "error: give the prompt in one place"),
        (["story.txt"], "error: unexpected 'story.txt'; give a text with --prompt, a file with --file, or - for standard input\n"),
        (["--file", "/nothing/here"], "error: cannot read /nothing/here: No such file or directory\n"),
        (["--prompt", ""], "error: the prompt is empty\n"),
        (["--prompt", "a", "--chat"], "error: the tokenizer has no chat template; leave chat (--chat) away, or choose a chat model\n"),
        (["--prompt", "a", "--top-p", "0.9"], "error: top_p has no effect on greedy decoding; give a temperature above 0\n"),
        (["--prompt", "a", "--max-new-tokens", "0"], "error: not a length: '0'"),
        (["--prompt", "a", "--chunk-size", "0"], "error: Invalid value for '--chunk-size'"),
        (["--prompt", "a", "--method", "self_extend:group=2"], "error: self_extend: neighbours is missing"),
        (["--prompt", "a", "--dtype", "half"], "error: unknown dtype 'half'"),
    ],
)
def test_what_cannot_be_done_is_one_line(folder, arguments, says, capsys):
    assert run(["generate", folder, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(says)
    assert err.count("\n") == 1


def test_files_have_to_be_utf8(folder, tmp_path, capsys):
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    assert run(["generate", folder, "--file", str(tmp_path / "latin.txt")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'latin.txt'} is not UTF-8 text (byte 3)\n"


def test_a_missing_model(capsys):
    assert run(["generate", "./nothing", "--prompt", "a"]) == 2
    assert capsys.readouterr().err == "error: no such folder: ./nothing\n"


def test_a_method_is_used(folder, capsys):
    spec = "self_extend:neighbours=4,group=4"
    assert run(["generate", folder, "--prompt", PROMPT * 4, "--max-new-tokens", "12", "--method", spec, "--chunk-size", "9"]) == 0
    out, err = capsys.readouterr()
    assert out == expected(folder, 12, PROMPT * 4, spec)
    assert out != expected(folder, 12, PROMPT * 4)
    assert err == ""


def test_drawing_is_repeatable(folder, capsys):
    command = ["generate", folder, "--prompt", PROMPT, "--max-new-tokens", "12", "--temperature", "2", "--top-k", "50", "--top-p", "0.99"]
    printed = []
    for seed in ("1", "1", "2"):
        assert run([*command, "--seed", seed]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


def test_chat(folder, tmp_path, capsys, monkeypatch):
    model, tokenizer = load(folder)
    tokenizer.chat_template = TEMPLATE
    save(model, tokenizer, tmp_path / "chat")
    seen = []
    monkeypatch.setattr(
        generation, "prefill", lambda model, ids, real=generation.prefill, **more: seen.append(ids) or real(model, ids, **more)
    )
    assert run(["generate", str(tmp_path / "chat"), "--prompt", "hi", "--chat", "--max-new-tokens", "2"]) == 0
    assert tokenizer.decode(seen[0][0]) == "<bos>user: hi!"
    assert capsys.readouterr().err == ""


# lengths


@pytest.mark.parametrize("spec", ["infllm", "sinks:window_size=124"])
def test_the_remedies_that_the_warning_names_read_on(folder, spec, capsys):
    assert run(["generate", folder, "--prompt", PROMPT * 10, "--max-new-tokens", "4", "--method", spec]) == 0
    assert capsys.readouterr().err == ""


def most_tokens(monkeypatch):
    """How many tokens the command wants at most."""
    asked = []
    monkeypatch.setattr(writing, "tokens", lambda *args, max_new_tokens, **more: asked.append(max_new_tokens) or iter([]))
    monkeypatch.setattr(writing, "text", lambda *args: iter(["text"]))
    return asked


@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        ([], 256),
        (["--method", "self_extend:neighbours=4,group=4"], 256),
        (["--method", "sinks:window_size=16"], None),
        (["--method", "sinks:window_size=16+log_n"], None),
        (["--method", "sinks:window_size=16", "--max-new-tokens", "1k"], 1024),
    ],
)
def test_only_methods_that_bound_memory_write_without_end(folder, arguments, most, monkeypatch, capsys):
    asked = most_tokens(monkeypatch)
    assert run(["generate", folder, "--prompt", "a", *arguments]) == 0
    assert asked == [most]
    assert capsys.readouterr().out == "text\n"


def test_the_checkpoints_own_method_counts(folder, tmp_path, monkeypatch):
    asked = most_tokens(monkeypatch)
    save(*load(folder), tmp_path / "sinks", method="sinks:window_size=16", target=4096)
    assert run(["generate", str(tmp_path / "sinks"), "--prompt", "a"]) == 0
    assert run(["generate", str(tmp_path / "sinks"), "--prompt", "a", "--method", "self_extend:neighbours=4,group=4"]) == 0
    assert asked == [None, 256]


WARNING = (
    "warning: 4 tokens read and up to 125 written go beyond the 128 that {folder} is made for, where its text falls apart; "
    "`longreach stretch {folder} --to 129 --out DIR` extends it, and --method infllm or --method sinks:window_size=124 reads on as it is\n"
)


@pytest.mark.parametrize(
    ("arguments", "warning"),
    [
        (["--max-new-tokens", "124"], ""),
        (["--max-new-tokens", "125"], WARNING),
        (["--max-new-tokens", "125", "--method", "ntk:factor=2"], ""),
        (["--method", "sinks:window_size=16"], ""),
    ],
)
def test_beyond_the_window_there_is_a_warning(folder, arguments, warning, monkeypatch, capsys):
    most_tokens(monkeypatch)
    assert run(["generate", folder, "--prompt", "four", *arguments]) == 0
    assert capsys.readouterr() == ("text\n", warning.format(folder=folder))


@pytest.mark.parametrize("spec", ["yarn:factor=4", "self_extend:neighbours=4,group=4"])
def test_a_stretched_checkpoint_is_made_for_its_target(folder, spec, tmp_path, monkeypatch, capsys):
    most_tokens(monkeypatch)
    save(*load(folder), tmp_path / "out", method=spec, target=512)
    for most, warned in (("508", False), ("509", True)):
        assert run(["generate", str(tmp_path / "out"), "--prompt", "four", "--max-new-tokens", most]) == 0
        assert ("go beyond the 512" in capsys.readouterr().err) is warned


def test_a_model_without_positions_beyond_its_window_refuses(tmp_path, capsys):
    GPT2LMHeadModel(GPT2Config(vocab_size=264, n_positions=32, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path / "gpt2")
    byte_tokenizer().save_pretrained(tmp_path / "gpt2")
    command = ["generate", str(tmp_path / "gpt2"), "--prompt", "four", "--max-new-tokens"]
    assert run([*command, "28"]) == 0
    capsys.readouterr()
    assert run([*command, "29"]) == 2
    name = tmp_path / "gpt2"
    says = f"error: {name} has positions for 32 tokens and no more; the prompt has 4, so 28 can be written; --method stretch_positions"
    assert capsys.readouterr().err == f"{says} lengthens that\n"
    assert run(["generate", str(name), "--prompt", "x" * 40]) == 2
    assert "the prompt has 40, so nothing can be written" in capsys.readouterr().err
    assert run(["generate", str(name), "--prompt", "x" * 60, "--max-new-tokens", "4", "--method", "stretch_positions:factor=5"]) == 0
    assert capsys.readouterr().err == ""


# as people run it


def start(folder, *arguments, **options):
    command = [sys.executable, "-c", "from longreach.cli.main import main; main()", "generate", folder, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **options)


def test_text_streams_without_end_and_ctrl_c_ends_it(folder):
    # A shell that starts its jobs in the background lets them ignore Ctrl-C, and what they start, too.
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = start(folder, "--prompt", PROMPT, "--method", "sinks:window_size=16", preexec_fn=listening)
    try:
        head = b""
        while len(head) < 12:
            head += process.stdout.read(12)
        process.send_signal(signal.SIGINT)
        tail, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    text = (head + tail).decode("utf-8")  # whole characters, wherever it was stopped
    assert text.endswith("\n")
    right = expected(folder, 12, spec="sinks:window_size=16")
    assert text[:4] == right[:4]
    assert err.decode() == "stopped\n"


def test_text_is_utf8_in_any_locale(folder):
    process = start(
        folder, "--prompt", PROMPT, "--max-new-tokens", "60", env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    )
    out, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (0, b"")
    assert out.decode("utf-8") == expected(folder, 60)
    assert not out.isascii(), "random bytes come out as U+FFFD"


def test_a_reader_that_stops_reading_ends_it(folder):
    process = start(folder, "--prompt", PROMPT, "--method", "sinks:window_size=16")
    try:
        assert process.stdout.read(3)
        process.stdout.close()
        assert process.wait(timeout=600) == 1
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.stderr.close()


def test_an_automatic_factor_reaches_the_end_of_the_answer(folder, capsys):
    prompt = PROMPT * 10  # 160 bytes; the window is 128 tokens
    length = prompt_ids(byte_tokenizer(), prompt).shape[1] + 12
    assert length > 128
    assert run(["generate", folder, "--prompt", prompt, "--max-new-tokens", "12", "--method", "yarn:factor=auto"]) == 0
    assert capsys.readouterr().out == expected(folder, 12, prompt, f"yarn:factor={length / 128!r}")
    assert run(["generate", folder, "--prompt", PROMPT, "--max-new-tokens", "12", "--method", "yarn:factor=auto"]) == 0
    assert capsys.readouterr().out == expected(folder, 12), "a short text is not scaled"


def test_an_automatic_factor_needs_an_end(folder, capsys):
    assert run(["generate", folder, "--prompt", PROMPT, "--method", "yarn:factor=auto+sinks:window_size=16"]) == 2
    says = "error: a method with factor=auto, or without settings, has to know where the text ends; give max_new_tokens (--max-new-tokens)"
    assert capsys.readouterr().err.startswith(says)
    assert run(["generate", folder, "--prompt", PROMPT, "--method", "yarn:factor=aut"]) == 2
    assert "yarn: factor=aut is not a number" in capsys.readouterr().err

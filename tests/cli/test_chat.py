import io
import json
import re
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch

from longreach.checkpoints.checkpoint import load, save
from longreach.cli.main import run
from longreach.conversation.conversation import Conversation
from tests.checkpoints.folders import write_folder
from tests.conversation.talks import talker

pytestmark = pytest.mark.usefixtures("no_bars")
PLAIN = "{folder} has no chat template; it is asked as User: ...\\nAssistant: ...\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that never ends by itself, with a chat template."""
    path = tmp_path_factory.mktemp("chat") / "tiny"
    save(*talker(), path)
    return str(path)


@pytest.fixture
def chat(monkeypatch, capsys):
    """Runs the command over lines; gives exit code, stdout and stderr."""

    def converse(folder, lines, *options):
        said = lines if isinstance(lines, bytes) else "\n".join(lines).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said)))
        code = run(["chat", folder, *options])
        return code, *capsys.readouterr()

    return converse


SHORT = ("--max-new-tokens", "12")


def answers(folder, lines, **options):
    with Conversation(*load(folder), reserve=12, **options) as talk:
        return [talk.say(line, max_new_tokens=12) for line in lines]


def shown(replies):
    return "".join(reply.text + ("" if reply.text.endswith("\n") else "\n") for reply in replies)


STOPPED = "stopped after 12 tokens; --max-new-tokens allows more\n"


def test_each_line_is_a_turn(chat, folder):
    lines = ["hi", "", "and é?", "  /no command", "/quit", "not said"]
    code, out, err = chat(folder, lines, *SHORT)
    assert (code, err) == (0, 3 * STOPPED)
    assert out == shown(answers(folder, ["hi", "and é?", "/no command"]))


@pytest.mark.parametrize("policy", ["whole_turns", "sinks", "infllm", "summarise:max_tokens=4"])
def test_what_no_longer_fits_is_told_in_one_line(chat, folder, policy):
    lines = ["one " * 6, "two " * 6, "three " * 6, "four " * 6]
    code, out, err = chat(folder, lines, *SHORT, "--window", "120", "--overflow", policy, "--system", "Be brief.")
    replies = answers(folder, [line.strip() for line in lines], window=120, overflow=policy, system="Be brief.")
    assert code == 0
    assert out == shown(replies)
    assert err == "".join((f"{reply.receipt}\n" if reply.receipt else "") + STOPPED for reply in replies)
    assert any(reply.receipt for reply in replies)


def test_a_message_that_does_not_fit_is_refused_in_one_line_and_the_conversation_goes_on(chat, folder):
    code, out, err = chat(folder, ["hi", "x" * 200, "go on"], *SHORT, "--window", "120")
    assert code == 2, "a program that reads the answers has to know"
    assert out == shown(answers(folder, ["hi", "go on"], window=120))
    first, second, third = err.splitlines()
    assert first == third == STOPPED.strip()
    assert second.startswith(
        "error: the newest message and the system prompt have 220 tokens, 112 too many for the 108 that a window of 120"
    )


def test_tokens_are_shown_by_turn(chat, folder):
    _, out, _ = chat(folder, ["one " * 6, "two " * 6, "three " * 6, "/tokens"], *SHORT, "--window", "120", "--system", "Be brief.")
    lines = out.splitlines()
    assert "system: 19" in lines
    assert "turn 1, user: 31 (left out)" in lines
    assert "turn 3, user: 43" in lines
    assert lines[-1].startswith("in the window: ")
    assert lines[-1].endswith(" of 120, 12 of them kept for an answer")
    _, out, _ = chat(folder, ["hi", "go on", "/tokens"], *SHORT, "--overflow", "sinks", "--window", "40")
    assert re.fullmatch(r"in the cache: [4-9]\d, of which the last one sees 40", out.splitlines()[-1])


def test_messages_are_saved_and_loaded(chat, folder, tmp_path):
    file = tmp_path / "talk.json"
    chat(folder, ["hi", f"/save {file}"], *SHORT, "--system", "Be brief.")
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert [message["role"] for message in kept] == ["system", "user", "assistant"]
    code, out, err = chat(folder, ["lost", f"/load {file}", "go on", f"/save {file}"], *SHORT)
    assert code == 0
    assert f"3 messages read from {file}\n" in err
    assert f"5 messages written to {file}\n" in err
    assert json.loads(file.read_text(encoding="utf-8"))[:3] == kept
    assert shown(answers(folder, ["go on"], messages=kept)) in out


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/load nowhere.json", "error: cannot read nowhere.json: No such file or directory"),
        (
            "/save",
            "error: unknown command '/save'; there are /tokens, /save FILE, /load FILE, /quit (a message that begins with / has a space",
        ),
        ("/etc/passwd is what?", "error: unknown command '/etc/passwd is what?'"),
    ],
)
def test_a_wrong_command_leaves_the_conversation_as_it_is(chat, folder, tmp_path, monkeypatch, line, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = chat(folder, ["hi", line, "go on"], *SHORT)
    assert code == 2
    assert says in err.splitlines()[1]
    assert out == shown(answers(folder, ["hi", "go on"]))


def test_a_conversation_that_cannot_be_loaded_leaves_the_one_that_is(chat, folder, tmp_path):
    (tmp_path / "long.json").write_text(json.dumps([{"role": "system", "content": "x" * 300}]))
    code, out, err = chat(folder, ["hi", f"/load {tmp_path / 'long.json'}", "go on"], *SHORT)
    assert code == 2
    assert "error: the system prompt and a message of one word have 331 tokens" in err
    assert out == shown(answers(folder, ["hi", "go on"]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--overflow", "all"], "error: unknown overflow 'all'; "),
        (["--overflow", "summarise:keep=2"], "error: summarise: keep=2 must be above 0 and at most 1\n"),
        (["--window", "far"], "error: not a length: 'far'"),
        (
            ["--window", "20"],
            "error: a window of 20 tokens leaves no room beside 256 for the answer; keep fewer free (reserve, --max-new-tokens)\n",
        ),
        (["--system", " "], "error: the system prompt is empty\n"),
        (
            ["--system", "x" * 300, *SHORT],
            "error: the system prompt and a message of one word have 331 tokens, and a window of 256 leaves 244",
        ),
        (["--method", "yarm"], "error: unknown method 'yarm'; did you mean yarn"),
        (["--top-p", "0.9"], "error: top_p has no effect on greedy decoding; give a temperature above 0\n"),
    ],
)
def test_what_cannot_be_is_one_line(chat, folder, options, says):
    code, out, err = chat(folder, ["hi"], *options)
    assert (code, out) == (2, "")
    assert err.startswith(says)
    assert err.count("\n") == 1


def test_a_pipe_has_to_be_utf8(chat, folder):
    code, _, err = chat(folder, "hi\ncaf\xe9".encode("latin-1"), *SHORT)
    assert code == 2
    assert err.endswith("error: line 2 of standard input is not UTF-8 text\n")


def test_a_checkpoint_without_a_template_is_asked_plainly(chat, tmp_path):
    folder = str(write_folder(tmp_path / "tiny", eos_token_id=None))
    code, out, err = chat(folder, ["hi", "so?"], *SHORT)
    assert code == 0
    assert err.startswith(PLAIN.format(folder=folder))
    assert err.count("chat template") == 1
    assert out == shown(answers(folder, ["hi", "so?"]))


def test_a_method_and_a_seed_are_used(chat, folder):
    options = ("--method", "sinks:window_size=24", "--temperature", "2", "--top-k", "40", "--top-p", "0.95")
    printed = [chat(folder, ["hi", "and?"], *SHORT, *options, "--seed", seed) for seed in ("1", "1", "2")]
    assert printed[0] == printed[1] != printed[2]
    assert printed[0][2].startswith("warning: sinks:window_size=24 forgets what it has no room for")


def test_numbers_that_are_none_are_told_in_one_line(chat, folder, tmp_path):
    model, tokenizer = load(folder)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    save(model, tokenizer, tmp_path / "nan")
    code, out, err = chat(str(tmp_path / "nan"), ["hi"], *SHORT)
    assert (code, out) == (2, "")
    assert err.startswith(
        "error: the logits of LlamaForCausalLM are not finite (NaN or infinite): layer 2 of 3 (model.layers.1) is the first"
    )
    assert err.count("\n") == 1


# as people run it


def test_ctrl_c_ends_an_answer_and_the_conversation_goes_on(folder):
    # A shell that starts its jobs in the background lets them ignore Ctrl-C, and what they start, too.
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, "-c", "from longreach.cli.main import main; main()", "chat", folder, "--method", "sinks:window_size=24"]
    process = subprocess.Popen(
        [*command, "--max-new-tokens", "1M"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        preexec_fn=listening,
    )  # fmt: skip
    try:
        process.stdin.write(b"hi\n")
        head = b""
        while len(head) < 12:
            head += process.stdout.read(12)
        process.send_signal(signal.SIGINT)
        tail, err = process.communicate(b"/tokens\n", timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert b"stopped by you after" in err
    lines = (head + tail).decode("utf-8").splitlines()
    assert "turn 1, user: 10" in lines
    assert lines[-1].startswith("in the cache: ")

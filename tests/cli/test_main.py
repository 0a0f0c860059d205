import os
import re
import subprocess
import sys

import pytest
import typer.main

import longreach
from longreach import cli
from longreach.cli.main import make_app, run, verbs
from longreach.core import registry
from tests.cli.snapshot import snapshot

VERB = """
import typer
from longreach.core.errors import InputError

def some_verb(how: str) -> None:
    "Ends as it is told."
    if how == "refuse":
        raise InputError("nothing to read in x.txt;\\ngive a text")
    if how == "stop":
        raise KeyboardInterrupt
    if how == "abort":
        raise typer.Abort
    if how == "leave":
        raise typer.Exit(3)
    if how == "break":
        raise ZeroDivisionError("a bug")
    print("done")
"""


@pytest.fixture
def some_verb(monkeypatch, tmp_path):
    """One more file in the folder of verbs."""
    (tmp_path / "some_verb.py").write_text(VERB, encoding="utf-8")
    (tmp_path / "_private.py").write_text("raise ImportError('no verb')", encoding="utf-8")
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    registry.modules.cache_clear()
    yield
    registry.modules.cache_clear()
    sys.modules.pop("longreach.cli.some_verb", None)


@pytest.mark.usefixtures("some_verb")
def test_a_file_is_a_verb(capsys):
    assert "some_verb" in verbs()
    assert run(["some-verb", "well"]) == 0
    assert capsys.readouterr() == ("done\n", "")


@pytest.mark.usefixtures("some_verb")
@pytest.mark.parametrize(
    ("how", "code", "says"),
    [
        ("refuse", 2, "error: nothing to read in x.txt; give a text\n"),
        ("stop", 130, "stopped\n"),
        ("abort", 130, "stopped\n"),
        ("leave", 3, ""),
    ],
)
def test_what_users_should_know_is_one_line(how, code, says, capsys):
    assert run(["some-verb", how]) == code
    assert capsys.readouterr() == ("", says)


@pytest.mark.usefixtures("some_verb")
def test_a_bug_is_a_bug():
    with pytest.raises(ZeroDivisionError):
        run(["some-verb", "break"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["metods"], "No such command 'metods'"),
        (["methods", "--jsn"], "No such option: --jsn"),
        (["methods", "yarn", "extra"], "extra"),
        (["--wrong"], "No such option: --wrong"),
    ],
)
def test_a_wrong_command_is_one_line_that_names_the_help(arguments, says, capsys):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert says in err
    assert err.endswith("--help\n")
    assert err.count("\n") == 1


def test_without_a_verb_there_is_help(capsys):
    assert run([]) == 0
    assert "Usage: longreach" in capsys.readouterr().out


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"longreach {longreach.__version__}\n"


def test_the_script_is_installed():
    program = [
        sys.executable,
        "-c",
        "from importlib.metadata import entry_points as e; (p,) = e(group='console_scripts', name='longreach'); p.load()()",
    ]
    result = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"longreach {longreach.__version__}\n"


def test_the_package_is_the_script():
    done = subprocess.run([sys.executable, "-m", "longreach", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"longreach {longreach.__version__}"


def test_a_reader_that_has_seen_enough_is_no_error():
    program = [sys.executable, "-c", "from longreach.cli.main import main; main()", "--version"]
    reads, writes = os.pipe()
    os.close(reads)
    result = subprocess.run(program, stdout=writes, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writes)
    assert (result.returncode, result.stderr) == (1, "")


def libraries(**chosen):
    """What transformers and huggingface_hub think of messages and bars once a verb runs."""
    code = """if True:
        from longreach.cli import main
        main._quieten_libraries()
        import transformers
        from huggingface_hub.utils import are_progress_bars_disabled
        from transformers.utils import logging
        downloads = not are_progress_bars_disabled("huggingface_hub.http_get")
        print(logging.get_verbosity() == logging.ERROR, logging.is_progress_bar_enabled(), downloads)
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in ("TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS")
    }
    result = subprocess.run([sys.executable, "-c", code], env=environment | chosen, capture_output=True, text=True, check=True)
    only_errors, loading_bars, download_bars = result.stdout.split()
    return {"only errors": only_errors, "loading bars": loading_bars, "download bars": download_bars}


def test_libraries_keep_their_advice_to_themselves():
    assert libraries() == {"only errors": "True", "loading bars": "False", "download bars": "True"}


def test_what_users_chose_wins():
    chosen = libraries(TRANSFORMERS_VERBOSITY="info", HF_HUB_DISABLE_PROGRESS_BARS="0")
    assert chosen == {"only errors": "False", "loading bars": "True", "download bars": "True"}


def test_options_stand_in_their_panels():
    help_of_eval = "\n".join(snapshot()["eval"])
    parts = re.split(r"^(\S.*):$", help_of_eval, flags=re.MULTILINE)
    panels = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert list(panels)[:2] == ["Arguments", "Options"]
    assert "--tasks" in panels["Options"]
    assert "--judge-model" in panels["A judge"]
    assert {"--served-model", "--concurrency"} <= set(re.findall(r"--[\w-]+", panels["An endpoint in place of a model"]))
    assert set(re.findall(r"^  (--[\w-]+)", panels["Loading the model"], re.MULTILINE)) >= {"--revision", "--dtype", "--device"}


def test_every_option_of_a_verb_is_in_its_help():
    group = typer.main.get_command(make_app())
    shown = snapshot()
    for name in verbs():
        called = name.replace("_", "-")
        options = [option for param in group.commands[called].params for option in param.opts if option.startswith("--")]
        text = "\n".join(shown[called])
        assert len(re.findall(r"^  -h, --help\b", text, re.MULTILINE)) == 1
        assert [option for option in options if not re.search(rf"^  (-\w, )?{option}\b", text, re.MULTILINE)] == [], called


def test_the_options_of_the_verb_alone_are_built(monkeypatch):
    built = []
    monkeypatch.setattr("longreach.cli.main.make_app", lambda names=None: built.append(names) or make_app(names))
    assert run(["context-probe", "--help"]) == 0
    assert run(["--help"]) == 0
    assert built == [["context_probe"], None]

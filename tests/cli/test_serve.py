import json
import os
import queue
import signal
import socket
import threading

import httpx2
import pytest

from longreach.checkpoints.checkpoint import save
from longreach.cli.main import run
from longreach.serving import run as serving_run
from tests.conversation.talks import talker

pytestmark = pytest.mark.usefixtures("no_bars")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve") / "tiny"
    save(*talker(), path)
    return str(path)


@pytest.fixture
def services(monkeypatch):
    """What would have been served."""
    made = []

    class Server:
        def __init__(self, service, *, host, port, ready):
            made.append((service, host, port))
            self.ready = ready

        def serve_until_signal(self):
            self.ready("http://here")

    monkeypatch.setattr(serving_run, "ServiceServer", Server)
    return made


def test_it_serves_until_a_signal_ends_it(folder, monkeypatch, capsys):
    """In this process, whose signals are the server's: what is under way when SIGTERM comes is answered to its end."""
    told, rest = queue.SimpleQueue(), []
    monkeypatch.setattr("builtins.print", lambda line, **_: told.put(line))

    def ask():
        url = told.get().split(" is served at ")[1].split()[0]
        body = {"model": "tiny", "messages": [{"role": "user", "content": "x" * 250}], "max_tokens": 60, "stream": True, "temperature": 0}
        with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as reply:
            lines = reply.iter_lines()
            rest.append(next(lines))
            os.kill(os.getpid(), signal.SIGTERM)
            rest.extend(line for line in lines if line)

    asking = threading.Thread(target=ask)
    asking.start()
    assert run(["serve", folder, "--port", "0", "--method", "yarn", "--to", "512", "--grace", "30s"]) == 0
    asking.join()
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2].removeprefix("data: "))["longreach"]["profile"] == "yarn:factor=2"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert capsys.readouterr().err == ""


def test_options_reach_the_service(folder, services, tmp_path, monkeypatch, capsys):
    (tmp_path / "keys.txt").write_text("one\n\n two \n")
    (tmp_path / "card.json").write_text('{"usable": 1}')
    monkeypatch.setenv("LONGREACH_SERVE_KEY", "three")
    options = [
        "--method", "sinks:window_size=64", "--method", "stock", "--name", "mine", "--host", "0.0.0.0", "--port", "8123",
        "--api-key-file", str(tmp_path / "keys.txt"), "--card", str(tmp_path / "card.json"), "--chunk-size", "32",
        "--max-tokens-in-flight", "4k", "--max-running", "3", "--max-waiting", "4", "--reuse", "1MiB", "--max-body", "2MB",
        "--timeout", "2m",
    ]  # fmt: skip
    assert run(["serve", folder, *options]) == 0
    ((service, host, port),) = services
    assert (service.name, host, port) == ("mine", "0.0.0.0", 8123)
    assert service.keys == ("three", "one", "two")
    assert service.card == {"usable": 1}
    assert [each.method for each in service.profiles.all] == ["", "sinks:window_size=64"]
    scheduler = service.scheduler
    assert (scheduler.chunk_size, scheduler.most_tokens, scheduler.most_running, scheduler.most_waiting) == (32, 4096, 3, 4)
    assert (scheduler.prefixes.most_bytes, service.limits.body, service.limits.seconds) == (1 << 20, 2_000_000, 120)
    out, err = capsys.readouterr()
    assert out == "mine (256 tokens, any tokens under sinks:window_size=64) is served at http://here (API: http://here/v1)\n"
    assert err == ""


def test_a_server_that_is_open_to_everybody_says_so(folder, services, capsys, monkeypatch):
    monkeypatch.delenv("LONGREACH_SERVE_KEY", raising=False)
    assert run(["serve", folder, "--host", "0.0.0.0"]) == 0
    assert "warning: anybody who reaches 0.0.0.0 can use this server" in capsys.readouterr().err
    ((service, _, _),) = services
    assert service.scheduler.most_tokens == 65536
    assert len(service.profiles.all) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--method", "yarn"], "--method yarn has to know how far to reach; give --to LENGTH"),
        (["--to", "1k"], "--to has no effect without a method that is left open"),
        (["--method", "linear:factor=2", "--method", "linear:factor=2"], "--method: one of them is named twice"),
        (["--reuse", "lots"], "--reuse lots: no size; write 500MB or 2GiB"),
        (["--grace", "later"], "--grace later: no time"),
        (["--api-key-file", "none.txt"], "cannot read --api-key-file none.txt: No such file"),
        (["--card", "none.json"], "cannot read --card none.json"),
        (["--max-tokens-in-flight", "far"], "far"),
    ],
)
def test_what_cannot_be_meant_is_told(folder, options, says, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(["serve", folder, *options]) == 2
    assert says in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(["serve", folder, "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen at 127.0.0.1, port" in capsys.readouterr().err


def test_without_its_packages_it_says_what_to_install(folder, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(["serve", folder]) == 2
    assert "serving needs fastapi, uvicorn, python_multipart; run:" in capsys.readouterr().err

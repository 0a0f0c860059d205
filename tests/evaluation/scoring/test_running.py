"""Programs that are answers come to an end, and do no harm."""

import subprocess
import time
from pathlib import Path

import pytest

from longreach.evaluation.scoring.running import run_program


def test_what_a_program_prints():
    ran = run_program("import math\nprint(math.factorial(int(input())))", given="5")
    assert (ran.ended, ran.output, ran.error) == ("finished", "120\n", "")


@pytest.mark.parametrize(
    ("source", "ended", "error"),
    [
        ("1 / 0", "failed", "ZeroDivisionError: division by zero"),
        ("def f(:", "failed", "SyntaxError: invalid syntax"),
        ("import time; time.sleep(60)", "time", ""),
        ("while True: pass", "time", ""),
        ("while True: print('x' * 1000)", "output", ""),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "output", None),
        ("x = bytearray(10 ** 10)", "failed", "MemoryError"),
        ("open('a', 'w').write('x' * 3_000_000)", "failed", "OSError: [Errno 27] File too large"),
        ("import os\nwhile True: os.fork()", "failed", "PermissionError: an answer that is run may not use os.fork"),
        ("import os; os.system('true')", "failed", "PermissionError: an answer that is run may not use os.system"),
        ("import os; os.kill(os.getppid(), 9)", "failed", "PermissionError: an answer that is run may not use os.kill"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "failed", None),
        ("import os; os.listdir('nowhere')", "failed", "FileNotFoundError: [Errno 2] No such file or directory: 'nowhere'"),
        ("import os; os._exit(3)", "failed", ""),
    ],
)
def test_what_goes_wrong_ends(source, ended, error):
    began = time.monotonic()
    ran = run_program(source, seconds=0.5)
    assert ran.ended == ended, ran
    assert error is None or ran.error == error
    assert len(ran.output) <= 1 << 20
    assert time.monotonic() - began < 5


def test_nothing_outside_its_folder_is_written(tmp_path):
    kept = tmp_path / "kept.txt"
    kept.write_text("here")
    for source in (
        f"open({str(kept)!r}, 'w')", f"import os; os.remove({str(kept)!r})", f"import shutil; shutil.rmtree({str(tmp_path)!r})",
        f"import os; os.rename({str(kept)!r}, 'mine')", f"import os; os.symlink({str(kept)!r}, 'b'); open('b', 'w')",
    ):  # fmt: skip
        assert "may not" in run_program(source).error
    assert kept.read_text() == "here"
    assert run_program("import os; open('a', 'w').write('x'); os.rename('a', 'b'); print(open('b').read())").output == "x\n"


def test_it_knows_nothing_of_where_it_runs(monkeypatch):
    monkeypatch.setenv("LONGREACH_API_KEY", "secret")
    ran = run_program("import os, sys\nprint(sorted(set(os.environ) - {'LC_CTYPE', '__CF_USER_TEXT_ENCODING'}), os.listdir())")
    assert ran.output == "[] ['answer.py']\n"
    ran = run_program("import os; print(os.getcwd())")
    assert not Path(ran.output.strip()).exists()


def test_nothing_of_it_outlives_it():
    ran = run_program("import os, time\nprint(os.getcwd(), flush=True)\ntime.sleep(60)", seconds=0.3)
    folder = ran.output.strip()
    assert ran.ended == "time"
    assert folder
    assert folder not in subprocess.run(["ps", "ax", "-o", "args"], capture_output=True, text=True, check=True).stdout

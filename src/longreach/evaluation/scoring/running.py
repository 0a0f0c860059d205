"""Answers that are programs: run in a process of their own, within limits of time, memory and disk, and without a network.

What keeps a program in is meant for the mistakes of models, not for attackers: who fears those runs all of it in a virtual machine.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import which
from typing import IO, Literal

from longreach.core.errors import UnsupportedError

Ended = Literal["finished", "failed", "time", "output"]
_APART = ("unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
_MB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What came of a program. Args: ended: `failed` by an error or a limit of memory; `time` and `output`: killed at that limit. output:
    what it printed. error: the last line of what it complained of."""

    ended: Ended
    output: str
    error: str = ""


def run_program(
    source: str, *, given: str = "", seconds: float = 5.0, memory: int = 512 * _MB, written: int = _MB, printed: int = _MB
) -> Ran:
    """Run a Python program in an empty folder with an empty environment, and end it with all that it began.

    Args: source: the program. given: its standard input. seconds: that it may take. memory: bytes. written: bytes of each file. printed:
    bytes of its output.
    Raises: UnsupportedError on Windows, which has no such limits.
    """
    if os.name != "posix":
        raise UnsupportedError("code", "Windows", "there are no limits for processes", "run the evaluation on Linux or macOS")
    with tempfile.TemporaryDirectory(prefix="longreach-answer-") as folder:
        Path(folder, "answer.py").write_text(source, encoding="utf-8", errors="replace")
        limits = (str(max(1, round(seconds + 1))), str(memory), str(written))
        command = [*_apart(), sys.executable, "-I", "-B", str(Path(__file__).with_name("_confined.py")), folder, *limits]
        with tempfile.TemporaryFile() as standard:
            standard.write(given.encode(errors="replace"))
            standard.seek(0)
            process = subprocess.Popen(  # noqa: S603 - no shell, and no word of the answer in the command
                command, cwd=folder, env={}, stdin=standard, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
            return _wait(process, seconds, printed)


def _wait(process: "subprocess.Popen[bytes]", seconds: float, printed: int) -> Ran:
    over = threading.Event()
    said, complained = bytearray(), bytearray()
    readers = [
        threading.Thread(target=_read, args=(stream, into, printed, over, process), daemon=True)
        for stream, into in ((process.stdout, said), (process.stderr, complained))
    ]
    for reader in readers:
        reader.start()
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        _kill(process)  # what it left behind, too
        process.wait()
    for reader in readers:
        reader.join(1.0)
    output, errors = (bytes(part).decode(errors="replace") for part in (said, complained))
    lines = errors.strip().splitlines()
    ended: Ended = "output" if over.is_set() else "time" if code is None else "failed" if code else "finished"
    return Ran(ended=ended, output=output, error=lines[-1] if lines else "")


def _read(stream: IO[bytes], into: bytearray, most: int, over: threading.Event, process: "subprocess.Popen[bytes]") -> None:
    with stream:
        while part := os.read(stream.fileno(), 65536):
            into += part[: most - len(into)]
            if len(into) >= most:
                over.set()
                _kill(process)
                return


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """The whole group; nothing where it has gone already."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()


@cache
def _apart() -> tuple[str, ...]:
    """What gives a process no network, and kills with it all processes that it began, where the system lets us."""
    if which(_APART[0]) is None:
        return ()
    tried = subprocess.run([*_APART, "true"], capture_output=True, check=False)  # noqa: S603 - fixed words
    return _APART if tried.returncode == 0 else ()

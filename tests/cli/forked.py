"""The `longreach` command in a process of its own that imports nothing: a new one spends eight seconds on torch and transformers."""

import os
import signal
import subprocess
import sys
import traceback

from longreach.cli.main import main


def start(*arguments):
    """The running process, with a pipe at each of its streams. Ctrl-C reaches it, as from a shell's foreground."""

    def run():
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # Popen goes on once its own pipe is closed
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, "w" if number else "r", closefd=False) for number in range(3))
        sys.argv, status = ["longreach", *arguments], 1
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        except BaseException:  # noqa: BLE001 - as the interpreter would
            traceback.print_exc()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            status = 120  # as the interpreter's
        os._exit(status)

    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, restore_signals=False, preexec_fn=run)

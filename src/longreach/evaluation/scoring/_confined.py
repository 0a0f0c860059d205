"""Runs a program within limits: what `running.py` starts as a process of its own. Nothing of longreach is imported here."""

import os
import resource
import sys

_WRITES = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate", "os.utime",
    "os.setxattr", "os.removexattr", "shutil.chown", "shutil.copyfile", "shutil.move", "shutil.rmtree", "os.chflags",
}  # fmt: skip
_REFUSED = ("socket.", "ctypes.", "os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.kill", "subprocess.", "pty.")


def _guard(folder: str) -> None:
    """Refuse network, processes, foreign code, and writing outside the folder. A hook cannot be taken away again."""
    inside = os.path.realpath(folder) + os.sep
    real, writing = os.path.realpath, os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def outside(path: object) -> bool:
        return not isinstance(path, (str, bytes, os.PathLike)) or not (real(os.fsdecode(path)) + os.sep).startswith(inside)

    def hook(event: str, given: tuple[object, ...]) -> None:
        if event.startswith(_REFUSED):
            raise PermissionError(f"an answer that is run may not use {event}")
        if event == "open" and isinstance(given[2], int) and given[2] & writing and given[0] != os.devnull and outside(given[0]):
            raise PermissionError(f"an answer that is run may not write {given[0]!r}")
        if event in _WRITES and outside(given[0]):
            raise PermissionError(f"an answer that is run may not change {given[0]!r}")

    sys.addaudithook(hook)


def _limit(kind: int, value: int) -> None:
    """Never above what the system allows already."""
    _, most = resource.getrlimit(kind)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(kind, (value, value))


def _main(folder: str, seconds: int, memory: int, file_size: int) -> None:
    os.chdir(folder)
    with open("answer.py", encoding="utf-8") as file:
        program = compile(file.read(), "answer.py", "exec")
    for kind, value in (
        (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, file_size), (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32), (resource.RLIMIT_NPROC, 0),
    ):  # fmt: skip
        _limit(kind, value)
    sys.argv = ["answer.py"]
    _guard(folder)
    exec(program, {"__name__": "__main__", "__builtins__": __builtins__})  # noqa: S102 - what all this is for


if __name__ == "__main__":
    _main(sys.argv[1], *map(int, sys.argv[2:5]))

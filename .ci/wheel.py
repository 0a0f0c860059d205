"""Builds the wheel and tries it as users get it: installed by pip into fresh environments outside this folder, run in an empty folder.

    .venv/bin/python .ci/wheel.py [VERSION ...]

Runs under every Python of the range that is on this machine (or those named, as 3.12; `here` is the one that runs this). For one that is
not on this machine, pip only resolves what would be installed, and its line says so. The environment of the Python that runs this borrows
its torch, the largest part by far; the others install torch, too.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")
DROPPED = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")  # from the environment that users have not got
DATA = {
    *(f"longreach/checkpoints/nano/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")),
    "longreach/reports/report.css",
    "longreach/py.typed",
}
COMMANDS = (
    ("longreach", "--version"),
    ("longreach", "--help"),
    ("longreach", "methods", "yarn"),
    ("longreach", "doctor", "nano"),
    ("longreach", "measure", "nano", "--to", "128", "--tasks", "loss"),
)


def main() -> None:
    """Build, look into the wheel, and try it under each Python."""
    wanted = [HERE if each == "here" else each for each in sys.argv[1:]] or VERSIONS
    with tempfile.TemporaryDirectory(prefix="longreach-wheel-") as name:
        place = Path(name)
        run(sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", place, ROOT)
        (wheel,) = place.glob("longreach-*.whl")
        look_into(wheel)
        for version in wanted:
            python = interpreter(version)
            told = try_out(wheel, python, place / version, borrow=version == HERE) if python else resolve(wheel, version, place)
            print(f"Python {version}: {told}", flush=True)


def look_into(wheel: Path) -> None:
    """Hold the wheel to what it should have: everything in src/longreach, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.partition("/")[0].endswith(".dist-info")}
    files = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "src/longreach", cwd=ROOT).splitlines()
    meant = {name.removeprefix("src/") for name in files}
    if missing := (meant | DATA) - held:
        sys.exit(f"{wheel.name} lacks {', '.join(sorted(missing))}")
    if strange := held - meant:
        sys.exit(f"{wheel.name} has what is not part of the package: {', '.join(sorted(strange))}")
    print(f"{wheel.name}: {len(held)} files, {wheel.stat().st_size / 1e6:.1f} MB")


def interpreter(version: str) -> str | None:
    """The path of a Python that runs, or None. Looks on the PATH, and among the versions that pyenv has."""
    if version == HERE:
        return sys.executable
    environment = dict(os.environ)
    if shutil.which("pyenv"):  # whose python3.12 runs only where it is chosen
        environment["PYENV_VERSION"] = ":".join(run("pyenv", "versions", "--bare").split())
    try:
        return run(f"python{version}", "-c", "import sys; print(sys.executable)", env=environment).strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def try_out(wheel: Path, python: str, place: Path, *, borrow: bool) -> str:
    """Install the wheel into a new environment and run it there. Returns: what was done, in words."""
    run(python, "-m", "venv", place)
    inside, empty = place / "bin", place / "empty"
    if borrow:
        borrow_torch(place)
    # What is run is compiled then, which is a small part of what is installed.
    run(inside / "python", *PIP, "install", "--no-compile", "--constraint", ROOT / "constraints.txt", wheel)
    empty.mkdir()
    where = run(inside / "python", "-c", "import longreach; print(longreach.__file__)", cwd=empty).strip()
    if not Path(where).is_relative_to(place):
        sys.exit(f"longreach comes from {where}, not from the wheel")
    for program, *arguments in COMMANDS:
        if not run(inside / program, *arguments, cwd=empty).strip():
            sys.exit(f"{program} {' '.join(arguments)} printed nothing under {python}")
    shutil.rmtree(place)  # gigabytes, where torch is in it
    return f"installed and run{', with the torch of this environment' if borrow else ''}"


def borrow_torch(place: Path) -> None:
    """Let an environment see this one's torch, and nothing else of it."""
    import torch

    shared, found = place / "shared", Path(torch.__file__).parents[1]
    shared.mkdir()
    for part in [*found.glob("torch*"), *found.glob("functorch")]:
        (shared / part.name).symlink_to(part)
    (library,) = place.glob("lib/python*/site-packages")
    (library / "shared.pth").write_text(f"{shared}\n", encoding="utf-8")


def resolve(wheel: Path, version: str, place: Path) -> str:
    """Ask pip whether everything that the wheel needs is there for a Python that is not. Returns: what was done, in words."""
    run(
        sys.executable, *PIP, "install", "--dry-run", "--ignore-installed", "--python-version", version, "--only-binary=:all:",
        "--target", place / "nowhere", "--constraint", ROOT / "constraints.txt", wheel,
    )  # fmt: skip
    return "not on this machine, so nothing ran; what it needs can be had for it"


def run(*words: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command without what is set for Python here.

    Returns: its output. Raises: CalledProcessError where it fails, whose errors are shown.
    """
    environment = {name: value for name, value in (env or os.environ).items() if name not in DROPPED}
    done = subprocess.run([*map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 (our own)
    if done.returncode:
        print(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}", file=sys.stderr)
        done.check_returncode()
    return done.stdout


if __name__ == "__main__":
    main()

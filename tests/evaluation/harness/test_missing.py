import importlib.util
import sys

import pytest

from longreach.cli.main import run
from longreach.core.errors import InputError


@pytest.fixture(autouse=True)
def without_the_harness(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *package: None if name == "lm_eval" else find(name, *package))
    for name in [name for name in sys.modules if name.startswith("longreach.evaluation.harness")]:
        monkeypatch.delitem(sys.modules, name)


def test_importing_it_says_what_to_install():
    with pytest.raises(InputError, match=r"need the package lm-eval; pip install 'longreach\[lm-eval\]'"):
        importlib.import_module("longreach.evaluation.harness")


def test_so_does_the_command(capsys):
    assert run(["lm-eval", "nano", "--tasks", "hellaswag"]) == 2
    assert capsys.readouterr().err == "error: tasks of lm-evaluation-harness need the package lm-eval; pip install 'longreach[lm-eval]'\n"

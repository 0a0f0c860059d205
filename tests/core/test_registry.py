import ast
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from longreach.core import registry
from longreach.core.catalogue import catalogue
from longreach.core.errors import SpecError
from longreach.core.kinds import all_kinds, kinds

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def outside(monkeypatch):
    """Registers modules of other packages as methods of a kind."""

    def register(kind="attention", **points):
        found = [EntryPoint(name, module, f"longreach.{kind}") for name, module in points.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: [point for point in found if point.group == group])
        registry.modules.cache_clear()

    yield register
    registry.modules.cache_clear()


def test_a_file_in_a_kinds_folder_is_a_method():
    assert registry.modules()["positions", "yarn"] == "longreach.positions.scaling.yarn"
    assert "yarn" in registry.names("positions")
    assert "yarn" not in registry.names("attention")


def test_bases_and_private_files_are_no_methods():
    assert all(name != "base" and not name.startswith("_") for name in registry.names())


def test_listing_imports_no_method_and_no_torch():
    code = "import sys; from longreach.core import registry; registry.names(); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "torch" not in loaded
    assert all(f"'{module}'" not in loaded for module in registry.modules().values())


def test_an_unknown_name_gets_the_nearest_ones():
    with pytest.raises(SpecError, match=r"unknown method 'yarnn'; did you mean yarn\?"):
        registry.get("yarnn")


def test_a_name_like_no_other_gets_the_list():
    with pytest.raises(SpecError, match=r"unknown positions 'qqq'; known: .*yarn"):
        registry.get("qqq", "positions")


def test_a_method_of_another_kind_is_unknown_to_a_kind():
    with pytest.raises(SpecError, match="unknown cache 'yarn'"):
        registry.get("yarn", "cache")


def test_outside_packages_join_by_entry_points(outside, monkeypatch, tmp_path):
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "wider.py").write_text(
        '''"""Wider: an example.

Paper: none
"""
from dataclasses import dataclass
from typing import ClassVar
from longreach.attention.base import AttentionPolicy
from longreach.core.method import MethodInfo

@dataclass(frozen=True, kw_only=True)
class Wider(AttentionPolicy):
    info: ClassVar = MethodInfo(title="Wider", paper="none")

METHOD = Wider
''',
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    outside(wider="plugin.wider")
    method = registry.get("wider", "attention")
    assert method().spec == "wider"
    assert method.kind == "attention"


def test_two_methods_of_one_name_are_refused(outside):
    outside(alibi="plugin.alibi")
    with pytest.raises(SpecError, match=r"two methods are called 'alibi': longreach\.attention\.bias\.alibi and plugin\.alibi"):
        registry.modules()


def test_an_entry_point_is_called_as_its_file_is(outside):
    outside(wider="plugin.broader")
    with pytest.raises(SpecError, match=r"the method 'wider' lives in plugin\.broader"):
        registry.modules()


# kinds whose files other files name


def test_internal_kinds_stand_in_no_list():
    assert set(all_kinds()) - set(kinds()) == {"metric", "overflow"}
    assert "rise_gain" in registry.names("metric")
    assert "rise_gain" not in registry.names()
    assert all(entry.kind != "metric" for entry in catalogue())
    assert registry.module("rise_gain", "metric").__name__ == "longreach.evaluation.claims.rise_gain"
    with pytest.raises(SpecError, match="unknown method 'rise_gain'"):
        registry.module("rise_gain")
    with pytest.raises(SpecError, match=r"unknown metric 'rise_gian'; did you mean rise_gain"):
        registry.module("rise_gian", "metric")


# claims


def numbers_of_experiments():
    """The keys of each experiment's METRICS: numbers that need a model of their own."""
    found = set()
    for path in EXPERIMENTS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["METRICS"]:
                found |= set(ast.literal_eval(node.value))
    return found


CLAIMS = [(method.name(), claim.metric) for method in registry.methods() for claim in method.info.claims]


@pytest.mark.parametrize(("method", "metric"), CLAIMS)
def test_every_claim_names_a_number_that_can_be_taken(method, metric):
    assert metric in {*registry.names("metric"), *numbers_of_experiments()}, f"{method} claims {metric}, which no file takes"


def test_every_number_is_claimed():
    assert {metric for _, metric in CLAIMS} == {*registry.names("metric"), *numbers_of_experiments()}


def test_a_new_number_is_a_file(outside, monkeypatch, tmp_path):
    (tmp_path / "plugin_of_numbers").mkdir()
    (tmp_path / "plugin_of_numbers" / "answer.py").write_text(
        '''"""The answer."""
from longreach.evaluation.claims.base import Metric
from longreach.evaluation.evidence import Number
from longreach.evaluation.intervals import Interval

METRIC = Metric(meaning="the answer", take=lambda name, bench: Number(spec=name, interval=Interval(42, 42, 42), of="1 question"))
''',
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    outside("metric", answer="plugin_of_numbers.answer")
    assert registry.module("answer", "metric").METRIC.take("yarn", None).interval.mean == 42

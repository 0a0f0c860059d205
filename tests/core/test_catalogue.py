import json
from dataclasses import asdict

from longreach.core import registry
from longreach.core.catalogue import Setting, catalogue, describe
from longreach.positions.fitted import longrope
from longreach.positions.scaling import yarn


def test_every_registered_method_is_listed():
    listed = {(entry.kind, entry.name) for entry in catalogue()}
    assert {(method.kind, method.name()) for method in registry.methods()} <= listed
    assert {("recipe", "prolong"), ("command", "reach"), ("command", "heads")} <= listed
    assert ("command", "doctor") not in listed  # nothing of a paper's
    assert {entry.kind for entry in catalogue("positions")} == {"positions"}


def test_an_entry_says_what_the_methods_file_says():
    entry = describe("positions", yarn)
    assert (entry.kind, entry.name, entry.paper, entry.title) == ("positions", "yarn", yarn.METHOD.info.paper, yarn.METHOD.info.title)
    assert entry.summary.startswith("YaRN: low frequencies interpolated")
    assert entry.limits
    assert entry.cost
    assert entry.differs.startswith("nothing. On a checkpoint that was scaled before")
    assert entry.arguments.startswith("factor: target length")
    assert entry.flags == ("training_free", "exportable")


def test_settings_have_name_type_and_default():
    factor, beta_fast, _, attention_factor = describe("positions", yarn).settings
    assert factor == Setting(name="factor", type="float", required=True, default=None)
    assert beta_fast == Setting(name="beta_fast", type="float", required=False, default=32.0)
    assert attention_factor == Setting(name="attention_factor", type="float or none", required=False, default=None)


def test_a_method_that_is_fitted_has_the_settings_of_its_fit():
    entry = describe("positions", longrope)
    assert "fitted" in entry.flags
    assert Setting(name="population", type="int", required=False, default=64) in entry.fit
    assert entry.fit_arguments.startswith("on: a file to go on from")
    assert (describe("positions", yarn).fit, describe("positions", yarn).fit_arguments) == ((), "")


def test_programs_can_read_it():
    assert json.loads(json.dumps([asdict(entry) for entry in catalogue()]))

import json
from dataclasses import asdict

from longreach.core import registry
from longreach.core.catalogue import Setting, catalogue, describe
from longreach.positions.longrope import Longrope
from longreach.positions.yarn import Yarn


def test_every_registered_method_is_listed():
    assert sorted(entry.name for entry in catalogue()) == registry.names()
    assert {entry.kind for entry in catalogue("positions")} == {"positions"}


def test_an_entry_says_what_the_methods_file_says():
    entry = describe(Yarn)
    assert (entry.kind, entry.name, entry.paper, entry.title) == ("positions", "yarn", Yarn.info.paper, Yarn.info.title)
    assert entry.summary.startswith("YaRN: low frequencies interpolated")
    assert entry.limits
    assert entry.cost
    assert entry.differs == "nothing."
    assert entry.arguments.startswith("factor: target length")
    assert entry.flags == ("training_free", "exportable")


def test_settings_have_name_type_and_default():
    factor, beta_fast, _, attention_factor = describe(Yarn).settings
    assert factor == Setting(name="factor", type="float", required=True, default=None)
    assert beta_fast == Setting(name="beta_fast", type="float", required=False, default=32.0)
    assert attention_factor == Setting(name="attention_factor", type="float or none", required=False, default=None)


def test_a_method_that_is_fitted_has_the_settings_of_its_fit():
    entry = describe(Longrope)
    assert "fitted" in entry.flags
    assert Setting(name="population", type="int", required=False, default=64) in entry.fit
    assert entry.fit_arguments.startswith("on: a file to go on from")
    assert (describe(Yarn).fit, describe(Yarn).fit_arguments) == ((), "")


def test_programs_can_read_it():
    assert json.loads(json.dumps([asdict(entry) for entry in catalogue()]))

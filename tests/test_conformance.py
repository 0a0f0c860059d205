"""Every registered method passes the checks of its kind.

The first setting of a method passes all of them, and each setting the reference. Of the further settings, a sixth runs each of the
costly checks, and each check takes half of the shapes of model, always the same ones; `make check METHOD=name` leaves nothing out.
"""

from zlib import crc32

import pytest

from longreach.testing import conformance

COSTLY = {"gradients", "causality", "chunks", "decoding", "left_padding", "lengths", "snapshots", "length", "seed"}


def drawn(cases):
    """All cases but those that are left to `make check`."""
    known = set()
    for case in cases:
        again = (case.name, case.check.name) in known
        known.add((case.name, case.check.name))
        if not again or case.check.name not in COSTLY or not crc32(str(case).encode()) % 6:
            yield case


def pytest_generate_tests(metafunc):
    cases = list(conformance.cases())
    metafunc.parametrize("case", cases if metafunc.config.getoption("--method") else list(drawn(cases)), ids=str)


def test_conformance(case, pytestconfig):
    try:
        case.run(thorough=bool(pytestconfig.getoption("--method")))
    except conformance.Excused as reason:
        pytest.xfail(str(reason))

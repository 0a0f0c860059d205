"""Every registered method passes the checks of its kind."""

import pytest

from longreach.testing import conformance


@pytest.mark.parametrize("case", list(conformance.cases()), ids=str)
def test_conformance(case):
    try:
        case.run()
    except conformance.Excused as reason:
        pytest.xfail(str(reason))

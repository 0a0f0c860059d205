"""What every method of a kind must do, checked on tiny random models: offline, on a CPU, in seconds.

A package with methods of its own tests them with the same checks:

    @pytest.mark.parametrize("case", conformance.cases("attention"), ids=str)
    def test_conformance(case):
        case.run()

A method excuses itself from a check in its own file, with the reason: `XFAIL = {"gradients": "its kernel has none"}`. The excuse is
strict: a check that is excused and passes is a failure. The suites are this package's modules; each lists its `CHECKS`.
"""

import gc
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from longreach.cache.base import with_wrappers
from longreach.core import registry
from longreach.core.method import Method
from longreach.core.spec import parse
from longreach.engine.prompt import prompt_end
from longreach.positions.base import positions_of
from longreach.testing.conformance.base import DRAWN, PROMPT, Check, require


class Excused(Exception):  # noqa: N818 - not an error: it tells a test runner to report an expected failure
    """The method failed a check, as its file says that it does. The message is the reason given there."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One check of one setting of one method."""

    kind: str
    name: str
    example: Method
    check: Check

    def __str__(self) -> str:
        """As `self_extend:neighbours=16,group=4-causality`."""
        return f"{self.example.spec}-{self.check.name}"

    def run(self, *, thorough: bool = True) -> int:
        """Run the check. Returns how many comparisons it made.

        Args: thorough: on all shapes of model that the check is for; otherwise on the first and half of the others, drawn by name.
        Raises: AssertionError where it fails, made no comparison, or passes though the method's file excuses it; Excused.
        """
        reason = excuses(self.example).get(self.check.name)
        drawn = DRAWN.set("" if thorough else self.check.name)
        try:
            # What is cut at the end of a prompt is not the same in chunks and at once, unless that end is.
            with _uncollected(), prompt_end(PROMPT):
                compared = self.check.run(self.example)
            require(compared > 0, f"{self.check.name} compared nothing")
        except Exception as error:
            if reason is None:
                raise
            raise Excused(reason) from error
        finally:
            DRAWN.reset(drawn)
        require(reason is None, f"{self.name} passes {self.check.name}, which its XFAIL excuses ({reason}); take the excuse out")
        return compared


@contextmanager
def _uncollected() -> Iterator[None]:
    """No collection of garbage meanwhile: models of others that keep a method take it out of the registries when they go, and so would
    change what is compared between two looks at it.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def excuses(method: Method) -> dict[str, str]:
    """Check name -> reason, from the file of the method."""
    found: dict[str, str] = getattr(sys.modules[type(method).__module__], "XFAIL", {})
    return found


def checks() -> list[Check]:
    """The checks of all suites."""
    suites = [module.name for module in pkgutil.iter_modules(__path__) if module.name != "base" and not module.name.startswith("_")]
    return [check for suite in suites for check in importlib.import_module(f"{__name__}.{suite}").CHECKS]


def cases(kind: str | None = None) -> Iterator[Trial]:
    """Every check that applies to a method, on each of its settings; of all registered methods, or of one kind's."""
    represented: set[str] = set()  # checks of the tier `contract` that some method has stood for
    all_checks = checks()
    for method in registry.methods(kind):
        name, module = method.name(), sys.modules[method.__module__]
        stacked = stacks(module)
        for check in all_checks:
            examples = [*getattr(module, check.settings, module.EXAMPLES), *(stacked if check.settings == "EXAMPLES" else ())]
            fitting = [example for example in examples if check.applies(example)]
            if check.tier != "example":
                fitting = [] if check.tier == "contract" and check.name in represented else fitting[:1]
            represented |= {check.name} if fitting else set()
            yield from (Trial(kind=example.kind, name=name, example=example, check=check) for example in fitting)


def stacks(module: ModuleType) -> list[Method]:
    """The stacks that a wrapper is checked in: its file's STACKS, specs, each as one method."""
    found = [with_wrappers(parse(spec)) for spec in getattr(module, "STACKS", ())]
    return [positions_of(stack) or stack[0] for stack in found]

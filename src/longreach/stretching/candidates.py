"""Which methods could stretch a model from its trained window to a target, and with which settings.

Methods suggest their own settings (`Method.suggest`), so a new method takes part by being registered.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from longreach.core import registry
from longreach.core.errors import InputError
from longreach.core.method import Method
from longreach.core.spec import parse, unparse
from longreach.evaluation.applicable import refusal
from longreach.stretching.choice import label

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A stack of methods to try; an empty one is the model as it is.

    Args: named: whether the user asked for exactly this one. tuned: steps that the model was trained before.
    """

    stack: tuple[Method, ...] = ()
    named: bool = False
    tuned: int = 0

    @property
    def spec(self) -> str:
        """The stack as a spec; "" for the model as it is."""
        return unparse(self.stack)

    @property
    def label(self) -> str:
        """How people call it; "" for the model as it is."""
        return label(self.spec, self.tuned)

    @property
    def forgets(self) -> bool:
        """Whether text that it has read is lost."""
        return any(method.info.forgets for method in self.stack)

    @property
    def complexity(self) -> tuple[int, ...]:
        """Less is simpler: the model as it is, then what a plain checkpoint can hold, then fewer methods."""
        return (len(self.stack) > 0, not all(method.info.exportable for method in self.stack), len(self.stack))

    @property
    def bounded_memory(self) -> bool:
        """Whether its memory stays the same however much it reads."""
        return any(method.info.bounded_memory for method in self.stack)


def collect(wanted: Iterable[str], trained_window: int, target: int) -> list[Candidate]:
    """The candidates that are meant by `auto` (what every method suggests), a method's name (what that one suggests) or a spec.

    Raises: SpecError for what does not parse; InputError for a task, or where nothing is meant.
    """
    found: dict[str, Candidate] = {}
    for text in wanted:
        for candidate in _meant(text.strip(), trained_window, target):
            found.setdefault(candidate.spec, candidate)
    if not found:
        raise InputError(f"no method to try; name one, or {AUTO}")
    return list(found.values())


def improved(candidate: Candidate) -> list[Candidate]:
    """The candidate with each method stacked on it that suggests itself for that."""
    present = {method.name() for method in candidate.stack}
    first = candidate.stack[0]
    suggested = [method for each in registry.methods() if each.name() not in present for method in each.suggest_on(first)]
    return [replace(candidate, stack=(*candidate.stack, method), named=False) for method in suggested]


def applicable(model: PreTrainedModel, candidates: Sequence[Candidate]) -> tuple[list[Candidate], dict[str, str]]:
    """Those that the model takes, and for the others, by label, why not.

    Raises: UnsupportedError for a candidate that the user named.
    """
    fitting, refused = [], {}
    for candidate in candidates:
        error = refusal(model, candidate.stack)
        if error is None:
            fitting.append(candidate)
        elif candidate.named:
            raise error
        else:
            refused[candidate.label] = error.reason
    return fitting, refused


def _meant(text: str, trained_window: int, target: int) -> list[Candidate]:
    meant = registry.methods() if text == AUTO else [registry.get(text, acts_on="model")] if text in registry.names() else ()
    suggested = [method for each in meant for method in each.suggest(trained_window, target)]
    if suggested:
        return [Candidate(stack=(method,), named=text != AUTO) for method in suggested]
    stack = parse(text, trained_window=trained_window, target=target)
    if task := next((method for method in stack if method.kind == "task"), None):
        raise InputError(f"{task.name()} is something to measure, not a method to try; see longreach methods")
    return [Candidate(stack=stack, named=True)]

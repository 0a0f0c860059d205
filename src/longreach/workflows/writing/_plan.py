"""Plans as models write them: read leniently, brought to the number of points that there is room for, and given passages to fill."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from longreach.workflows.output_length import words_asked, words_in
from longreach.workflows.writing._fit import Count, beginning

POINT_TOKENS = 96  # of a point in a prompt, where there is room for so many
MOST_POINTS = 50  # a longer plan is of no use to anybody; the paper throws it away

_LABEL = re.compile(
    r"^[\s>#*_|-]*(?:(?:paragraph|part|section|chapter|scene|step|point)\s*)?\(?\d{1,3}(?:\.\d+)*\b[.):]?\W*|^\s*[-*•+]\s+", re.IGNORECASE
)
_NAMED = re.compile(r"^\W*(?:main\s*point|title|topic|content|outline)\s*\**\s*[:\u2013\u2014-]\s*", re.IGNORECASE)
_ABOUT, _NUMBER = r"(?:about|around|approximately|~)?\s*", r"(\d[\d,.]*)"
_NAMED_LENGTH = rf"\b(?:word\s*count|length)\W*{_ABOUT}{_NUMBER}(?:\s*words?)?"
_LENGTH = re.compile(rf"[\s\-\u2013\u2014(\[|,;*_]*(?:{_NAMED_LENGTH}|{_ABOUT}{_NUMBER}[\s-]*words?)\W*$", re.IGNORECASE)
_TOTAL = re.compile(r"\W*total\b", re.IGNORECASE)
_EDGES = " \t-\u2013\u2014*_|[]\"'"


@dataclass(frozen=True)
class PlannedPart:
    """Args: point: what the part says. words: how many it is to have; None where the plan does not say."""

    point: str
    words: int | None = None


@lru_cache(maxsize=8)
def parse_plan(text: str) -> tuple[PlannedPart, ...]:
    r"""The points of a plan, in order: lines that are numbered, have a bullet or name a number of words; what is said twice, once.

    >>> parse_plan("Here it is:\nParagraph 1 - Main Point: The sea. - Word Count: 200 words\n2) **The ship**\n- Storms (about 50 words)")
    (PlannedPart(point='The sea.', words=200), PlannedPart(point='The ship', words=None), PlannedPart(point='Storms', words=50))
    """
    found: dict[str, PlannedPart] = {}
    for line in text.splitlines():
        labelled, length = _LABEL.match(line), _LENGTH.search(line)
        if (not labelled and not length) or _TOTAL.match(line):
            continue
        point = line[labelled.end() if labelled else 0 : length.start() if length else None]
        point = _NAMED.sub("", point).replace("**", "").strip(_EDGES)
        words = words_asked(f"{length[1] or length[2]} words") if length else None
        if words_in(point) and not point.startswith("..."):  # the form of a plan, copied from the prompt
            found.setdefault(point.casefold(), PlannedPart(point, words))
    return tuple(found.values())


def fitted(plan: Sequence[PlannedPart], points: int) -> list[PlannedPart]:
    """The same plan with so many points at most: neighbours become one."""
    if len(plan) <= points:
        return list(plan)
    borders = [at * len(plan) // points for at in range(points + 1)]
    groups = [plan[start:end] for start, end in pairwise(borders)]
    return [PlannedPart("; ".join(part.point for part in group), _together(group)) for group in groups]


def spread(plan: Sequence[PlannedPart], passages: int) -> list[int]:
    """How many passages of equal length each point gets: at least one, and more by the words that the plan gives it.

    Args: passages: at least as many as there are points.

    >>> spread([PlannedPart("a", 100), PlannedPart("b", 300), PlannedPart("c")], 6)
    [1, 3, 2]
    """
    given = [part.words for part in plan if part.words]
    mean = sum(given) / len(given) if given else 1
    weights = [part.words or mean for part in plan]
    free = passages - len(plan)
    shares = [max(0.0, weight / sum(weights) * passages - 1) for weight in weights]
    scale = free / sum(shares) if sum(shares) else 0.0
    counts = [1 + int(share * scale) for share in shares]
    by_rest = sorted(range(len(plan)), key=lambda at: (int(shares[at] * scale) - shares[at] * scale, at))
    for at in by_rest[: passages - sum(counts)]:
        counts[at] += 1
    return counts


def points_of(text: str, parts: int, most: int, count: Count, *, general: str) -> list[str]:
    """Exactly so many points of a plan as a model wrote it, in at most so many tokens each. Args: general: for those that are missing."""
    points = worded(fitted(parse_plan(text), parts), most, count)
    return points + [beginning(general, most, count)] * (parts - len(points))


def worded(plan: Sequence[PlannedPart], most: int, count: Count) -> list[str]:
    """The points in at most so many tokens each."""
    return [beginning(part.point, most, count) for part in plan]


def listed(points: Sequence[str]) -> str:
    """Points as they stand in a prompt."""
    return "\n".join(f"{number}. {point}" for number, point in enumerate(points, 1))


def longest_plan() -> str:
    """A plan of which no model can write a longer one, as far as prompts show it."""
    return "\n".join(f"{number}. {'a ' * 2 * POINT_TOKENS}{number}" for number in range(1, MOST_POINTS + 1))


def _together(group: Sequence[PlannedPart]) -> int | None:
    given = [part.words for part in group if part.words]
    return sum(given) * len(group) // len(given) if given else None

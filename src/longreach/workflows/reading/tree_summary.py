"""Book summaries as in BooookScore: summaries of parts, merged level by level; or one running summary that each part updates.

Paper: BooookScore: A systematic exploration of book-length summarization in the era of LLMs, 2023, arXiv:2310.00785
Cost: hierarchical: the whole text once, side by side where the model takes several, and a fraction of it again for the merging.
Incremental: the whole text once, one part after another, and up to two calls more where the summary grows too long.
Limits: merged summaries read well and lose detail; running ones keep detail and read worse, as the paper found.
Differs from the paper: the last call does the task, which may be more than to summarise. A summary cut at its limit is compressed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from longreach.core.errors import SpecError
from longreach.core.method import MethodInfo, at_least
from longreach.workflows.base import ReadingWorkflow
from longreach.workflows.counting import WindowError
from longreach.workflows.desk import Desk, Note, Part, Query, kept
from longreach.workflows.reading._notes import answer_from, fits, task_part
from longreach.workflows.wording import NOTHING, SUMMARY

Form = Literal["hierarchical", "incremental"]

WORDS_PER_TOKEN = 0.65  # the paper's, by which limits in words are made from limits in tokens
_CONTEXT = 0.2  # of the room, for the summary before the one that is being merged

_PART = (
    "Below is a part of a long text. Summarise it in {words} words at most: what happens or is said, to whom and why, in the order of the "
    f"text, with every name that matters to the task. If it says nothing that could matter, write only {NOTHING}."
)
_MERGE = (
    "Below are summaries of successive parts of a long text. Merge them into one of {words} words at most. Introduce everybody and "
    "everything when they first appear, and tell in the order of the text."
)
_CONTEXT_BEFORE = "Summary of what comes before, only to be understood, not to be repeated:"
_UPDATE = (
    "Below are a summary of the text so far and the next part of it. Write the summary again, {words} words at most, with what the next "
    "part adds."
)
_COMPRESS = "Below is a summary. Write it again in {words} words at most, and keep what matters most to the task."
_SO_FAR, _NEXT = "Summary so far:", "Next part:"


@dataclass(frozen=True, kw_only=True)
class TreeSummary(ReadingWorkflow):
    """Args: form: `hierarchical` or `incremental`. summary_tokens: of the longest summary (default: a sixth of the window)."""

    info: ClassVar[MethodInfo] = MethodInfo(
        title="BooookScore: A systematic exploration of book-length summarization in the era of LLMs", paper="arXiv:2310.00785"
    )
    form: Form = "hierarchical"
    summary_tokens: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 8, "summary_tokens")
        if self.form not in get_args(Form):
            raise SpecError(f"{self.name()}: form={self.form} must be one of {', '.join(get_args(Form))}")

    def read(self, desk: Desk) -> Note:
        """The answer: the last summary, as the task asks for it."""
        most = self.summary_tokens or desk.note_tokens
        return answer_from(desk, _tree(desk, most) if self.form == "hierarchical" else _running(desk, most))


def words(tokens: int) -> int:
    """So many words take about so many tokens."""
    return max(1, round(tokens * WORDS_PER_TOKEN))


def limits(levels: int, most: int) -> list[int]:
    """Tokens of the summaries of each level, from the parts up: each level has what the next one has, times `WORDS_PER_TOKEN`.

    >>> limits(3, 100)
    [42, 65, 100]
    """
    found = [most]
    for _ in range(levels - 1):
        found.append(int(found[-1] * WORDS_PER_TOKEN))
    return found[::-1]


def _tree(desk: Desk, most: int) -> list[Note]:
    task = task_part(desk)
    small = max(8, limits(2, most)[0])  # of the summaries of parts
    begin = _PART.format(words=words(small))
    chunks = desk.chunks(begin, task, SUMMARY, most=small)
    level = kept(desk.ask_all(Query(parts=(begin, chunk, task, SUMMARY), most=small, role="summary", again=True) for chunk in chunks))
    while len(level) > 1 and not fits(desk, level):
        merged = _merged(desk, level, most)
        if len(merged) >= len(level):
            raise WindowError(f"two summaries do not fit into the window of {desk.window}; give shorter ones (summary_tokens)")
        level = merged
    return level


def _merged(desk: Desk, level: Sequence[Note], most: int) -> list[Note]:
    """The next level: as many neighbours as fit together, each group behind the summary of the group before."""
    found: list[Note] = []
    begin, task = _MERGE.format(words=words(most)), task_part(desk)
    room = desk.room(_CONTEXT_BEFORE, begin, task, SUMMARY, most=most)
    pending = list(level)
    while pending:
        context: tuple[Part, ...] = (_CONTEXT_BEFORE, desk.first_part(found[-1].text, int(room * _CONTEXT))) if found else ()
        group = [pending.pop(0)]
        while pending and desk.room(*context, begin, *group, pending[0], task, SUMMARY, most=most) >= 0:
            group.append(pending.pop(0))
        found.append(desk.ask(*context, begin, *group, task, SUMMARY, most=most, role="merge", again=True))
    return kept(found)


def _running(desk: Desk, most: int) -> list[Note]:
    task = task_part(desk)
    begin, first = _UPDATE.format(words=words(most)), _PART.format(words=words(most))
    summary: Note | None = None
    for chunk in desk.chunks(begin, _SO_FAR, "", _NEXT, task, SUMMARY, most=most, beside=most):
        if summary is None:
            said = desk.ask(first, chunk, task, SUMMARY, most=most, role="summary", again=True)
            summary = None if said.empty else said
            continue
        said = desk.ask(begin, _SO_FAR, summary, _NEXT, chunk, task, SUMMARY, most=most, role="summary", again=True)
        if said.cut:
            half = most // 2
            shorter = desk.ask(_COMPRESS.format(words=words(half)), summary, task, SUMMARY, most=half, role="compress", again=True)
            said = desk.ask(begin, _SO_FAR, shorter, _NEXT, chunk, task, SUMMARY, most=most, role="summary", again=True)
        summary = summary if said.empty else said
    return [summary] if summary is not None else []


METHOD = TreeSummary
EXAMPLES = (TreeSummary(), TreeSummary(form="incremental"), TreeSummary(summary_tokens=32))
BAD = ({"form": "flat"}, {"summary_tokens": 4})

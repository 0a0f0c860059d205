"""How long texts get that are asked for in 500 to 20,000 words: in one call, and by workflows. `make docs` draws the table.

    python benchmarks/writing.py [MODEL] [--scripted] [--words 500,4000] [--topics 1] [--workflow plan_write]...

The score is S_l of LongBench-Write. What was measured is not measured again. --scripted: writers that write exactly what they are asked
for, half of it, a third more, or 300 words at most, and count words as tokens: with them every error is the workflow's own.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from longreach.data.stdlib import stdlib_text
from longreach.endpoint.base import ChatModel, Completion, Request
from longreach.reports.writing_table import ONE_CALL, writing_rows, writing_table
from longreach.testing.scripted import ScriptedWriter
from longreach.workflows.base import writing_workflow
from longreach.workflows.output_length import longwriter_lengths, words_in
from longreach.workflows.run import composition
from longreach.workflows.wording import TEXT, write_about

DOCS = Path(__file__).resolve().parents[1] / "docs"
ROWS = DOCS / "evidence" / "writing"
TOPICS = ("the history of lighthouses", "how bread is baked", "a year in the life of a village", "why people travel")
WORKFLOWS = ("plan_write", "novel", "patent")
WORDS = [500, 1000, 2000, 4000, 10_000, 20_000]
_SHORT = 300  # words
_DRAFT = 6000  # characters
_TOKENS_PER_WORD = 2  # that one call may take: more than any text of so many words has


class ShortWriter(ScriptedWriter):
    """Ends after 300 words at the latest, as models do that were never shown longer answers."""

    def ask(self, request: Request) -> Completion:
        """What it writes."""
        said = super().ask(request)
        words = said.text.split(" ")
        if len(words) <= _SHORT:
            return said
        return Completion(text=f"{' '.join(words[:_SHORT])}.", finish_reason="stop", completion_tokens=_SHORT, seconds=0.0)


SCRIPTED = {
    "scripted: as asked": lambda: ScriptedWriter(window=8192),
    "scripted: half of it": lambda: ScriptedWriter(window=8192, share=0.5),
    "scripted: a third more": lambda: ScriptedWriter(window=8192, share=4 / 3),
    "scripted: 300 words at most": lambda: ShortWriter(window=8192),
}


def in_one_call(model: ChatModel, task: str, words: int) -> tuple[str, dict[str, int]]:
    """What a model writes by itself, and what that took."""
    prompt = f"{task}\n\n{write_about(words)}\n\n{TEXT}"
    messages = [{"role": "user", "content": prompt}]
    read = model.count_chat(messages) or 0
    most = min(_TOKENS_PER_WORD * words, (model.window or 0) - read)
    said = model.chat(messages, most_tokens=most)
    return said.text, {"calls": 1, "read": read, "written": said.completion_tokens or 0, "at_most": read + most, "cut": int(said.cut)}


def by_workflow(model: ChatModel, task: str, workflow: str) -> tuple[str, dict[str, int]]:
    """What a workflow writes with it, and what that took. A patent is written from the beginning of the held-out text."""
    draft = [stdlib_text("held-out")[:_DRAFT]] if writing_workflow(workflow).documents == "needed" else []
    run = composition(model, task, documents=draft, workflow=workflow)
    text = "\n\n".join(run.parts())
    cost = run.ledger.cost
    return text, {"calls": cost.calls, "read": cost.read, "written": cost.written, "at_most": run.estimate.tokens, "cut": run.ledger.cut}


def measured(model: ChatModel, name: str, args: argparse.Namespace, known: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows that are not known yet."""
    have = {(row["model"], row["way"], row["asked"], row["topic"]) for row in known}
    for topic in TOPICS[: args.topics]:
        for words in args.words:
            for way in (ONE_CALL, *(args.workflow or WORKFLOWS)):
                if (name, way, words, topic) in have:
                    continue
                task, begun = f"Write a text of {words} words about {topic}.", time.perf_counter()
                text, took = in_one_call(model, task, words) if way == ONE_CALL else by_workflow(model, task, way)
                found = words_in(text)
                yield {
                    "model": name, "way": way, "topic": topic, "asked": words, "found": found,
                    "score": round(longwriter_lengths(words, found), 2), **took, "seconds": round(time.perf_counter() - begun, 1),
                }  # fmt: skip


def add(model: ChatModel, name: str, file: str, args: argparse.Namespace) -> None:
    """Measure what is missing, and write each row as it is there."""
    ROWS.mkdir(parents=True, exist_ok=True)
    for row in measured(model, name, args, writing_rows(ROWS)):
        with (ROWS / f"{file}.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(f"{json.dumps(row)}\n")
        print(json.dumps(row), flush=True)


def main() -> None:
    """Measure, and draw."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", nargs="?")
    options.add_argument("--scripted", action="store_true")
    options.add_argument("--name")
    options.add_argument("--dtype")
    options.add_argument("--words", type=lambda text: [int(each) for each in text.split(",")], default=WORDS)
    options.add_argument("--topics", type=int, default=1)
    options.add_argument("--workflow", action="append", metavar="SPEC", help="this one; may be repeated")
    args = options.parse_args()
    if args.scripted:
        for name, make in SCRIPTED.items():
            add(make(), name, "scripted", args)
    if args.model:
        import longreach
        from longreach.conversation.local import LocalModel

        name = args.name or Path(args.model).name
        add(LocalModel(*longreach.load(args.model, dtype=args.dtype)), name, name, args)
    print(writing_table(writing_rows(ROWS)))


if __name__ == "__main__":
    main()

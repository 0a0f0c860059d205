"""How many sentences `expand_abbreviations` gets right from their first letters, with what somebody said before and without it.

    python benchmarks/abbreviations.py MODEL --book FILE [--sentences 24] [--said 1000] [--name NAME]

The book is UTF-8 text with speech in quotation marks. Its first sentences in them are what was said before; those that are asked for come
later, and each is asked for with the sentence in front of it. What was measured is not measured again; `make docs` draws the table.
"""

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longreach.core.lines import append_lines
from longreach.endpoint.base import ChatModel
from longreach.reports.abbreviations_table import RANDOM, RETRIEVED, WITHOUT, abbreviation_rows, abbreviations_table
from longreach.workflows.abbreviations import abbreviation_of, expansion_accuracy, spoken_words
from longreach.workflows.run import composition

ROWS = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "abbreviations"
_SPEECH = re.compile(r'["\u201c]([^"\u201c\u201d]+)["\u201d]')
_SENTENCE = re.compile(r"[A-Z][^.!?]*[.!?]")
_LEAST, _MOST = 3, 5  # words of a sentence
EXAMPLES = 8


def spoken(text: str) -> list[str]:
    """Sentences of 3 to 5 words that stand in quotation marks, in their order."""
    found = (" ".join(each.split()) for speech in _SPEECH.findall(text) for each in _SENTENCE.findall(speech))
    return [each for each in found if _LEAST <= len(spoken_words(each)) <= _MOST]


def ways(said: Sequence[str]) -> dict[str, tuple[str, Sequence[str]]]:
    """Way -> the workflow, and the sentences that it may take examples from."""
    some = [said[at] for at in sorted(np.random.default_rng(0).choice(len(said), EXAMPLES, replace=False))]
    return {
        RETRIEVED: (f"expand_abbreviations:examples={EXAMPLES}", said),
        RANDOM: (f"expand_abbreviations:examples={EXAMPLES}", some),
        WITHOUT: ("expand_abbreviations:examples=0", some[:1]),
    }


def expanded(model: ChatModel, spec: str, said: Sequence[str], before: str, sentence: str) -> dict[str, Any]:
    """What a workflow makes of a sentence's first letters, and what that took."""
    begun = time.perf_counter()
    run = composition(model, f"{before} | {abbreviation_of(sentence)}", documents=["\n".join(said)], workflow=spec)
    found = "\n".join(run.parts())
    fits = abbreviation_of(found) == abbreviation_of(sentence)
    return {
        "found": found, "right": expansion_accuracy([sentence], [found]), "fits": float(fits),
        "calls": run.ledger.cost.calls, "seconds": round(time.perf_counter() - begun, 1),
    }  # fmt: skip


def main() -> None:
    """Measure what is missing, and draw."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model")
    options.add_argument("--book", type=Path, required=True)
    options.add_argument("--sentences", type=int, default=24)
    options.add_argument("--said", type=int, default=1000, help="sentences before those that are asked for")
    options.add_argument("--name")
    args = options.parse_args()
    import longreach
    from longreach.conversation.local import LocalModel

    sentences = spoken(args.book.read_text(encoding="utf-8"))
    said, later = sentences[: args.said], sentences[args.said :]
    if len(later) <= args.sentences:
        raise SystemExit(f"{args.book} has {len(sentences)} sentences of {_LEAST} to {_MOST} words in quotation marks: too few")
    step = (len(later) - 1) // args.sentences
    asked = [(later[at - 1], later[at]) for at in range(step, step * args.sentences + 1, step)]
    name = args.name or Path(args.model).name
    have = {(row["model"], row["book"], row["way"], row["sentence"]) for row in abbreviation_rows(ROWS)}
    model = LocalModel(*longreach.load(args.model))
    ROWS.mkdir(parents=True, exist_ok=True)
    for before, sentence in asked:
        known = any(spoken_words(sentence) == spoken_words(each) for each in said)
        for way, (spec, examples) in ways(said).items():
            if (name, args.book.stem, way, sentence) in have:
                continue
            row = {"model": name, "book": args.book.stem, "way": way, "sentence": sentence, "before": before, "known": known}
            row |= expanded(model, spec, examples, before, sentence)
            append_lines(ROWS / f"{name}.jsonl", [json.dumps(row)], "row")
            print(json.dumps(row), flush=True)
    print(abbreviations_table(abbreviation_rows(ROWS)))


if __name__ == "__main__":
    main()

"""Marks the answers that InfiniteBench's authors published, by our rules, by their own program, and beside their table.

    python benchmarks/infinitebench.py CLONE [--theirs PYTHON] [--out FILE]

CLONE is a clone of github.com/OpenBMB/InfiniteBench. With --theirs the rules of its src/compute_scores.py mark each answer, too, under an
interpreter that has rouge-score and tqdm: it runs other people's code, so read it first. In place of `evaluate`, which loads its metric
from the network, it gets the same call of rouge-score, and its command line is left out; nothing else is changed. The paper's numbers are
those of the table in its README.
"""

import argparse
import json
import re
from pathlib import Path
from statistics import fmean
from typing import Any

from _published import finish, read_answers, run, run_theirs, show

from longreach.core.errors import InputError
from longreach.evaluation.tasks.benchmarks._infinitebench_rules import PARTS, answer_of, mark

MODELS = ("gpt4", "yarn-mistral", "kimi", "claude2", "yi-6b-200k", "yi-34b-200k", "chatglm3")
PAPER: dict[str, tuple[float | None, ...]] = {  # in the order of MODELS; None: below 5
    "passkey": (100, 92.71, 98.14, 97.80, 100, 100, 92.20), "number_string": (100, 56.61, 95.42, 98.14, 94.92, 100, 80.68),
    "kv_retrieval": (89, None, 53.60, 65.40, None, None, None), "longbook_sum_eng": (14.73, 9.09, 17.96, 14.50, None, None, None),
    "longbook_qa_eng": (22.44, 9.55, 16.52, 11.97, 9.20, 12.17, None),
    "longbook_choice_eng": (67.25, 27.95, 72.49, 62.88, 36.68, 38.43, 10.48),
    "longdialogue_qa_eng": (8.50, 7.50, 11.50, 46.50, None, None, None), "longbook_qa_chn": (25.96, 16.98, 17.93, 9.64, 15.07, 13.61, None),
    "code_debug": (37.06, None, 17.77, None, 9.14, 13.96, 7.36), "code_run": (23.25, None, None, None, None, None, None),
    "math_calc": (None,) * 7, "math_find": (60, 17.14, 12.57, 32.29, None, 25.71, 7.71),
}  # fmt: skip
_WRAPPER = """
import json, sys, types
from rouge_score import rouge_scorer
class Rouge:
    def compute(self, predictions, references, use_aggregator):
        scorer = rouge_scorer.RougeScorer(["rougeLsum"], use_stemmer=False)
        scores = [scorer.score_multi(r, p) if isinstance(r, list) else scorer.score(r, p) for r, p in zip(references, predictions)]
        return {"rougeLsum": [score["rougeLsum"].fmeasure for score in scores]}
sys.modules["evaluate"] = types.SimpleNamespace(load=lambda name: Rouge())
sys.modules["args"] = types.SimpleNamespace(parse_args=None)
sys.path.insert(0, sys.argv[1])
sys.set_int_max_str_digits(0)
import compute_scores as theirs
answers = list(theirs.iter_jsonl(sys.argv[2]))
labels, preds = theirs.get_labels(answers), theirs.get_preds(answers, sys.argv[3])
print(json.dumps([theirs.get_score_one(p, l, sys.argv[3], sys.argv[4]) for p, l in zip(preds, labels)]))
"""


def ours(answers: list[dict[str, Any]], part: str, model: str) -> list[float]:
    """Our mark of every answer."""
    marks = []
    for one in answers:
        label = one["ground_truth"] if "ground_truth" in one else one["label"]
        written = one["prediction"] if "prediction" in one else one["pred"]
        if part == "math_calc" and model == "gpt4":  # it writes the first number of the expression, too
            written = re.sub("^[^0-9]*[0-9]+", "", written)
        marks.append(mark(part, written, answer_of(part, {"answer": label, "options": []})))
    return marks


def main() -> None:
    """Print a line for each file of answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--theirs", metavar="PYTHON", help="an interpreter with what their program needs (default: it is not run)")
    parser.add_argument("--out", type=Path, help="a JSON file with the numbers")
    args = parser.parse_args()
    rows, differing = [], 0
    for model in MODELS:
        for part in PARTS:
            path = args.clone / "results" / model / f"preds_{part}.jsonl"
            if not path.exists():
                continue
            answers, whole = read_answers(path)
            marks, paper = ours(answers, part, model), PAPER[part][MODELS.index(model)]
            row: dict[str, Any] = {"model": model, "part": part, "ours": (100 * fmean(marks),), "paper": () if paper is None else (paper,)}
            if args.theirs and whole:
                said = json.loads(run_theirs(args.theirs, _WRAPPER, str(args.clone / "src"), str(path), part, model))
                row["theirs"] = (100 * fmean(said),)
                differing += sum(abs(one - other) > 1e-9 for one, other in zip(marks, said, strict=True))
            rows.append(row)
            show(row)
    if not rows:
        raise InputError(f"{args.clone} has no answers below results; give a clone of github.com/OpenBMB/InfiniteBench")
    if args.theirs:
        print(f"{differing} single answers are marked differently")
    finish(rows, args.out)


if __name__ == "__main__":
    run(main, "infinitebench")

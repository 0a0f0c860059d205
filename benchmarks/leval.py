"""Marks the answers that L-Eval's authors published, by our rules, by their own program, and beside the paper's tables.

    python benchmarks/leval.py CLONE [--theirs PYTHON] [--out FILE]

CLONE is a clone of github.com/OpenLMLab/LEval. With --theirs its Evaluation/auto_eval.py runs on each file of answers, under an interpreter
that has rouge-score and nltk (with its data `punkt_tab`): it runs other people's code, so read it first. `datasets.Metric`, which newer
versions of datasets do not have, is given to it; nothing else is changed. The paper's numbers are those of its tables 3, 6 and 7.
"""

import argparse
import ast
import re
from pathlib import Path
from statistics import fmean
from typing import Any

from _published import Numbers, finish, read_answers, run, run_theirs, show

from longreach.core.errors import InputError
from longreach.evaluation.tasks.benchmarks.leval import score

MARKED = ("exam", "f1", "rouge")  # the others are a judge's
PAPER: dict[str, dict[str, Numbers]] = {
    "Claude-100k": {"coursera": (60.03,), "gsm100": (88.00,), "quality": (73.76,), "tpo": (83.64,), "codeU": (17.77,)},
    "gpt4-32k": {"coursera": (75.58,), "gsm100": (96.00,), "quality": (82.17,), "tpo": (84.38,), "codeU": (25.55,)},
    "turbo-16k-0613": {
        "coursera": (63.51,), "gsm100": (84.00,), "quality": (61.38,), "tpo": (78.43,), "codeU": (12.22,),
        "financial_qa": (45.36,), "legal_contract_qa": (24.87,), "multidoc_qa": (31.45,), "narrative_qa": (18.20,),
        "natural_question": (45.90,), "scientific_qa": (28.25,), "paper_assistant": (18.61, 39.55, 10.92),
        "review_summ": (18.67, 30.18, 7.14), "meeting_summ": (19.31, 30.20, 7.22),
    },
    "llama2-13b-chat-4k": {
        "financial_qa": (38.07,), "legal_contract_qa": (23.14,), "multidoc_qa": (26.14,), "narrative_qa": (16.76,),
        "natural_question": (35.43,), "scientific_qa": (27.46,), "paper_assistant": (18.49, 37.27, 9.79),
        "review_summ": (19.23, 30.49, 6.69), "meeting_summ": (19.65, 29.63, 6.54),
    },
    "vicuna-13b-16k": {
        "financial_qa": (45.57,), "legal_contract_qa": (18.16,), "multidoc_qa": (15.88,), "narrative_qa": (15.03,),
        "natural_question": (37.13,), "scientific_qa": (23.40,), "paper_assistant": (18.20, 36.30, 8.69),
        "review_summ": (18.49, 28.59, 6.15), "meeting_summ": (18.83, 27.82, 6.39),
    },
}  # fmt: skip
_WRAPPER = """
import runpy, sys
import datasets, nltk
try:
    nltk.sent_tokenize("A. B.")
except LookupError:
    nltk.sent_tokenize = lambda text: [text]
if not hasattr(datasets, "Metric"):
    class Metric:
        def __init__(self, config_name=None): self.config_name = config_name; self._info()
        def compute(self, predictions, references): return self._compute(predictions, references)
    class MetricInfo:
        def __init__(self, **values): pass
    datasets.Metric, datasets.MetricInfo = Metric, MetricInfo
program = sys.argv[1]
sys.argv = sys.argv[1:]
sys.path.insert(0, program.rpartition("/")[0])
runpy.run_path(program, run_name="__main__")
"""


def ours(answers: list[dict[str, Any]], dataset: str) -> Numbers:
    """Our mean marks in percent of the answers that are marked by themselves."""
    name = next(key for key in answers[0] if "_pred" in key)
    marks = [score(dataset, one["evaluation"], str(one[name]), str(one["gt"])) for one in answers if one["evaluation"] in MARKED]
    return tuple(100 * fmean(column) for column in zip(*marks, strict=True))


def theirs(clone: Path, python: str, path: Path) -> Numbers:
    """What their program says of the same file.

    Raises: LongreachError where it says nothing.
    """
    said = run_theirs(python, _WRAPPER, str(clone / "Evaluation/auto_eval.py"), "--pred_file", str(path))
    if average := re.findall(r"average score of .*: ([\d.]+)", said):
        return (float(average[-1]),)
    values = ast.literal_eval(re.findall(r"^\{.*\}$", said, re.MULTILINE)[-1])
    return tuple(values[name] for name in ("exact_match", "f1", "rouge/rougeL", "rouge/rouge1", "rouge/rouge2") if name in values)


def main() -> None:
    """Print a line for each file of answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--theirs", metavar="PYTHON", help="an interpreter with what their program needs (default: it is not run)")
    parser.add_argument("--out", type=Path, help="a JSON file with the numbers")
    args = parser.parse_args()
    rows = []
    for path in sorted(args.clone.glob("Predictions/exam_eval/*/*.jsonl")) + sorted(args.clone.glob("Predictions/ngram_eval/*/*.jsonl")):
        model, part = path.parent.name, path.name.partition(".")[0]
        row = {"model": model, "part": part, "ours": ours(read_answers(path)[0], part), "paper": PAPER.get(model, {}).get(part, ())}
        if args.theirs:
            row["theirs"] = theirs(args.clone, args.theirs, path)
        rows.append(row)
        show(row)
    if not rows:
        raise InputError(f"{args.clone} has no answers below Predictions; give a clone of github.com/OpenLMLab/LEval")
    finish(rows, args.out)


if __name__ == "__main__":
    run(main, "leval")

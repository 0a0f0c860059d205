"""How much a model reads until it is measured, and until it is stretched: in texts of the longest length, and questions beside.

python benchmarks/reading.py [MODEL] [--to 2048] [--methods SPEC]...

The numbers hang on the model and the methods, not on the machine. A method that is measured in full may read at most four texts of the
longest length; with a prompt for every question it would read some forty for its needles alone.
"""

import argparse
import warnings
from collections import Counter

import torch

import longreach
from longreach.core.lengths import parse_length
from longreach.core.progress import Progress

MOST = 4  # texts of the longest length for a method that is measured in full


class Texts(Progress):
    """Counts what is read of texts, by whose work it is."""

    def __init__(self) -> None:
        self.tokens, self.label = Counter[str](), ""

    def start(self, label: str, total: int) -> None:
        """`METHOD, text 2: loss and needle`, or the task alone."""
        whose, _, task = label.rpartition(": ")
        self.label = "inside the window" if task == "loss_inside" else whose.partition(", text ")[0]

    def advance(self, tokens: int) -> None:
        """So many tokens more are done."""
        self.tokens[self.label] += tokens


def main() -> None:
    """`measure`, then `stretch` method by method."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", nargs="?", default="nano")
    options.add_argument("--to", type=parse_length, default=2048)
    options.add_argument("--methods", action="append", metavar="SPEC")
    args = options.parse_args()
    methods = args.methods or ["yarn:factor=4", "self_extend:neighbours=256,group=12+log_n", "rerope:window_size=256+log_n"]
    model, tokenizer = longreach.load(args.model)
    read = Counter[str]()

    def see(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        read["all"] += given[0].numel()

    model.register_forward_pre_hook(see)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        longreach.measure(model, tokenizer, to=args.to, progress=(texts := Texts()))
        _tell(f"longreach measure {args.model} --to {args.to}", texts, read, args.to)
        read.clear()
        longreach.stretch(model, tokenizer, to=args.to, methods=methods, progress=(texts := Texts()))
    _tell(f"longreach stretch {args.model} --to {args.to}", texts, read, args.to)


def _tell(command: str, texts: Texts, read: Counter[str], length: int) -> None:
    for name, tokens in texts.tokens.items():
        most = "" if name in ("inside the window", "stock", "") else f" (at most {MOST})"
        print(f"{command}: {name or 'texts'} {tokens / length:.2f} texts{most}")
    print(f"{command}: questions {(read['all'] - texts.tokens.total()) / length:.2f} texts")


if __name__ == "__main__":
    main()

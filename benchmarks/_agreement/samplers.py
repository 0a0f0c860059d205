"""Positions of training sequences, as authors draw them: with every choice that can be made, and how likely each is."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from _agreement.base import Pair, compares
from _agreement.theirs import Source
from longreach.training.samplers.base import Geometry, PositionSampler
from longreach.training.samplers.cream import Cream
from longreach.training.samplers.pose import Pose
from longreach.training.samplers.randomized import Randomized

OUTCOMES = "probability of every outcome: text and positions of a sequence"


class Choices:
    """Stands for a generator of random numbers, and makes every choice once; see `outcomes`."""

    def __init__(self, path: Sequence[int]) -> None:
        self.path, self.taken, self.most, self.probability = path, 0, [], 1.0

    def among(self, count: int) -> int:
        """One of `count` that are equally likely."""
        at = self.taken
        self.taken, self.most, self.probability = at + 1, [*self.most, count], self.probability / count
        return self.path[at] if at < len(self.path) else 0

    def randint(self, low: int, high: int) -> int:
        """As `random.randint`, both ends included."""
        return low + self.among(high - low + 1)

    def integers(self, low: int, high: int, size: int | None = None) -> Any:
        """As numpy's, the upper end left out."""
        return low + self.among(high - low) if size is None else np.array([low + self.among(high - low) for _ in range(size)])

    def choice(self, count: int, size: int, replace: bool) -> Any:
        """As numpy's without repetition, in the order of the numbers."""
        sets = list(combinations(range(count), size))
        return np.array(sets[self.among(len(sets))])


def outcomes(run: Callable[[Choices], Any]) -> Counter[Any]:
    """outcome -> its probability, over all choices that `run` makes."""
    found, path = Counter[Any](), [0]
    while path:
        choices = Choices(path)
        found[run(choices)] += choices.probability
        path = (list(path) + [0] * len(choices.most))[: len(choices.most)]
        while path and path[-1] == choices.most[len(path) - 1] - 1:
            path.pop()
        if path:
            path[-1] += 1
    return found


def both(theirs: Counter[Any], ours: Counter[Any]) -> Pair:
    """Probabilities of all outcomes of either."""
    every = sorted(theirs | ours)
    return torch.tensor([theirs[one] for one in every]), torch.tensor([ours[one] for one in every])


def sampled(method: PositionSampler, choices: Any, seq_len: int, target: int) -> tuple[tuple[int, ...], ...]:
    """What a sampler of ours draws: text, positions."""
    text, positions = method.sample(choices, Geometry(seq_len=seq_len, target=target, trained_window=seq_len))
    return tuple(text.tolist()), tuple(positions.tolist())


POSE = ("dwzhu-pku/PoSE", "a3d4ba8bd38e6615ba778d9a1061e380c8e69647", "src/train_pose.py")


@compares("pose", *POSE, compared=OUTCOMES, inputs="sequences of 7 tokens, a target of 12, a text of 12 tokens")
def pose(source: Source) -> Pair:
    code = source.load("train_preprocess_function_pose")

    def theirs(choices: Choices) -> tuple[tuple[int, ...], ...]:
        code.globals["random"] = choices
        tokenize = lambda text, max_length, **how: {"input_ids": [list(range(min(12, max_length)))]}  # noqa: E731
        made = code.train_preprocess_function_pose({"text": None}, tokenize, 12, 7)
        return tuple(made["input_ids"][0]), tuple(made["position_ids"][0].tolist())

    return both(outcomes(theirs), outcomes(lambda choices: sampled(Pose(), choices, 7, 12)))


@compares(
    "pose", *POSE, compared="tokens of text that a sequence is taken from", inputs="sequences of 2048 tokens, a target of 32768",
    differs="The authors' code takes a sequence from at most 5 times its length of text, whatever the target; here its chunks of text skip "
    "as far as its positions.",
)  # fmt: skip
def pose_text(source: Source) -> Pair:
    lengths: list[int] = []

    def tokenize(text: None, max_length: int, **how: Any) -> dict[str, list[list[int]]]:
        lengths.append(max_length)
        return {"input_ids": [[0] * max_length]}

    code = source.load("train_preprocess_function_pose", random=SimpleNamespace(randint=lambda low, high: low))
    code.train_preprocess_function_pose({"text": None}, tokenize, 32768, 2048)
    return torch.tensor(lengths), torch.tensor([Pose().span(Geometry(seq_len=2048, target=32768, trained_window=2048))])


@compares(
    "randomized", "google-deepmind/randomized_positional_encodings", "e8c64749d8cad7772dc7ade75b32ef9b2b29b466",
    "models/positional_encodings.py", compared="probability of every outcome: positions of a sequence",
    inputs="sequences of 4 tokens, a target of 9; numpy stands for jax.numpy",
)  # fmt: skip
def randomized(source: Source) -> Pair:
    code = source.load("noisy_fixed_positional_encodings", jnp=np)

    def theirs(choices: Choices) -> tuple[int, ...]:
        choose = lambda key, a, shape, replace: a[choices.choice(len(a), shape[0], replace)]  # noqa: E731
        code.globals["jrandom"] = SimpleNamespace(choice=choose)
        return tuple(code.noisy_fixed_positional_encodings(np.arange(9)[:, None], 4, rng=0)[:, 0].tolist())

    return both(outcomes(theirs), outcomes(lambda choices: sampled(Randomized(), choices, 4, 9)[1]))


DRAWN = "positions of a sequence, for 199 random numbers and both kinds of ends, where the middle ends first and last"
CREAM = ("wutong4012/CREAM", "b7923866276a8fcb98c4b9e305fe9ba813a8e85d", "src/train.py")


def cream(source: Source, seq_len: int, factor: int) -> Pair:
    """Positions for 199 random numbers and both kinds of ends, where the middle ends first and last."""
    theirs, ours = [], []
    code = source.load("CREAM", sp=SimpleNamespace(erf=lambda x: torch.erf(torch.from_numpy(x)).numpy()))
    lengths = {"scaled_max_position_embeddings": seq_len * factor, "model_max_position_embeddings": seq_len}
    for number, kind, last in ((n / 200, kind, last) for n in range(1, 200) for kind in (0, 1) for last in (False, True)):
        draw = lambda low, high: kind if (low, high) == (0, 1) else int(high if last else low)  # noqa: B023, E731 - run at once
        code.globals["random"] = SimpleNamespace(randint=draw)
        code.globals["np"] = SimpleNamespace(**{**vars(np), "random": SimpleNamespace(rand=lambda: number)})  # noqa: B023
        theirs.append(code.CREAM({"input_ids": [[0] * seq_len * factor]}, **lengths)["position_ids"][0])
        whole = lambda low, high: high - 1 if last else low  # noqa: B023, E731
        rng = SimpleNamespace(random=iter([0.25 + kind / 2, number]).__next__, integers=whole)
        ours.append(sampled(Cream(), rng, seq_len, seq_len * factor)[1])
    return torch.tensor(theirs), torch.tensor(ours)


@compares(
    "cream", *CREAM, compared=DRAWN,
    inputs="sequences of 96 tokens, a target of 8 times that",
)  # fmt: skip
def cream_eight(source: Source) -> Pair:
    return cream(source, 96, 8)


@compares(
    "cream", *CREAM, compared=DRAWN,
    inputs="sequences of 96 tokens, a target of 4 times that",
    differs="The mean of the Gaussian is 1 + factor here. The authors' code has 9, which is that of the factor 8, for all factors.",
)  # fmt: skip
def cream_four(source: Source) -> Pair:
    return cream(source, 96, 4)

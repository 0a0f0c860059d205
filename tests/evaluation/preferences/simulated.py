"""Preferences whose quality and effect of length are known."""

import json

import numpy as np

from longreach.evaluation.preferences.annotations import Annotations


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def simulated(seed, count=400, quality=0.0, effect=0.0, extra=0.0, soft=False, hardness=None, name="tested", baseline=None):
    """A system's comparisons: the logit of a win is quality + effect * tanh(difference in sd) + hardness.

    `extra` is by how many standard deviations its outputs are longer on average, `baseline` the lengths of the baseline's.
    """
    rng = np.random.default_rng(seed)
    lengths, drawn = rng.integers(300, 900, count), rng.integers(300, 900, count)
    baseline = drawn if baseline is None else baseline
    lengths = lengths + np.round(extra * (lengths - baseline).std()).astype(int)
    longer = (lengths - baseline).astype(float)
    chance = sigmoid(quality + effect * np.tanh(longer / longer.std(ddof=1)) + (0 if hardness is None else hardness))
    return Annotations(
        place=f"{name}.json", system=name, baseline="base", annotator="judge", instructions=tuple(f"task {n}" for n in range(count)),
        index=tuple(range(count)), lengths=lengths.astype(float), baseline_lengths=baseline.astype(float),
        preference=chance if soft else (rng.random(count) < chance).astype(float),
    )  # fmt: skip


def entries(of):
    """The same as AlpacaEval writes it."""
    return [
        {
            "instruction": text, "output_1": "x" * int(first), "output_2": "y" * int(second), "generator_1": of.baseline,
            "generator_2": of.system, "preference": None if np.isnan(p) else 1 + float(p), "annotator": of.annotator, "index": index,
        }
        for text, first, second, p, index in zip(of.instructions, of.baseline_lengths, of.lengths, of.preference, of.index, strict=True)
    ]  # fmt: skip


def written(path, made):
    path.write_text(json.dumps(made), encoding="utf-8")
    return path

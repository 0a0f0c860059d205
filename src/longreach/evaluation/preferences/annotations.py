"""Reads annotated preferences, in AlpacaEval's format or WildBench's, and refuses what does not fit either.

AlpacaEval's (`annotations.json`): a list of objects, or one object a line, with `instruction`, `output_1`, `output_2`, `generator_1`,
`generator_2` and `preference`: 1 where the first output wins, 2 where the second does, anything between where the annotator leans, 0 or
1.5 for a tie, null where the annotation failed; `annotator` and `index` where there are any. WildBench's pairwise results: a list of
objects with `session_id`, `model_A`, `model_B`, `model_outputs`, `winner` (a name or `tie`) and `extent`, 1 for a slight win and 2 for a
clear one.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longreach.core.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """N comparisons of one system with one baseline by one annotator.

    Args: place: where they were read from. instructions: what was asked, which tells instructions apart. index: the number of each in its
    data set; its place in the file where the file gives none. lengths, baseline_lengths: characters of the outputs [N].
    preference: 1 where the system wins, 0 where the baseline does, 0.5 for a tie, NaN where there is no judgement [N].
    """

    place: str
    system: str
    baseline: str
    annotator: str
    instructions: tuple[str, ...]
    index: tuple[int, ...]
    lengths: Floats
    baseline_lengths: Floats
    preference: Floats

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Which comparisons have a preference [N]."""
        return ~np.isnan(self.preference)

    @property
    def longer(self) -> Floats:
        """By how many characters the system's output is longer [N]."""
        return self.lengths - self.baseline_lengths

    def against(self, baseline: str) -> "Annotations":
        """The same with `baseline`, one of the two systems, as the baseline. Raises: InputError for another name."""
        if baseline == self.baseline:
            return self
        if baseline != self.system:
            raise InputError(f"{self.place}: {baseline} is not in it; it compares {self.system} with {self.baseline}")
        return replace(
            self, system=self.baseline, baseline=self.system, lengths=self.baseline_lengths, baseline_lengths=self.lengths,
            preference=1 - self.preference,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One comparison: preference 0 to 1 for the second of the names, NaN without judgement."""

    instruction: str
    index: int
    names: tuple[str, str]
    lengths: tuple[int, int]
    annotator: str
    preference: float


def read_annotations(path: Path, baseline: str | None = None) -> Annotations:
    """The comparisons of a file, a system beside its baseline.

    Args: baseline: which of the two systems it is. None: AlpacaEval's first generator; of WildBench's the NAME of a folder `ref=NAME` that
    the file lies in (and its annotator is that of `eval=NAME`).
    Raises: InputError for a file that cannot be read, is of neither format, mixes annotators or pairs of systems, or has no preference.
    """
    found = _objects(path)
    known = next((reader for keys, reader in _FORMATS if keys <= found[0].keys()), None)
    if known is None:
        wanted = ", ".join(sorted(_FORMATS[0][0] - found[0].keys()))
        raise InputError(f"{path}: entry 1 is no annotation of AlpacaEval's (it lacks {wanted}) and none of WildBench's pairwise results")
    entries = [known(path, number, entry) for number, entry in enumerate(found)]
    first, second = _pair(path, entries)
    annotators = sorted({entry.annotator for entry in entries})
    if len(annotators) > 1:
        raise InputError(f"{path}: several annotators, {', '.join(annotators)}; give one file for each")
    flipped = [entry.names != (first, second) for entry in entries]
    preference = np.array([1 - entry.preference if flip else entry.preference for entry, flip in zip(entries, flipped, strict=True)])
    lengths = np.array([entry.lengths[::-1] if flip else entry.lengths for entry, flip in zip(entries, flipped, strict=True)], float)
    if np.isnan(preference).all():
        raise InputError(f"{path}: no entry has a preference")
    made = Annotations(
        place=str(path), system=second, baseline=first, annotator=annotators[0], instructions=tuple(entry.instruction for entry in entries),
        index=tuple(entry.index for entry in entries), lengths=lengths[:, 1], baseline_lengths=lengths[:, 0], preference=preference,
    )  # fmt: skip
    if baseline is None and known is _wildbench:
        told = _part(path, "ref=")
        baseline = min((name for name in (first, second) if told and told in name), key=len, default=None)
        if baseline is None:
            raise InputError(f"{path}: say with --baseline which of {first} and {second} is the baseline")
    return made if baseline is None else made.against(baseline)


def _part(path: Path, prefix: str) -> str:
    """What a folder of WildBench's results is called behind `prefix`; nothing where there is none."""
    return next((part.removeprefix(prefix) for part in path.absolute().parts if part.startswith(prefix)), "")


def _objects(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON list, or of JSON Lines."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text, so no JSON") from None
    try:
        found = json.loads(text)
    except ValueError as error:
        found = _lines(path, text, error)
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list) or not found:
        raise InputError(f"{path}: no list of annotations, or an empty one")
    for number, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: entry {number + 1} is {_name(entry)}, not an object")
    return found


def _lines(path: Path, text: str, error: ValueError) -> list[Any]:
    found: list[Any] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(json.loads(line))
        except ValueError:
            if not found:
                raise InputError(f"{path}: not JSON ({error})") from None
            raise InputError(f"{path}: line {number} is not JSON") from None
    return found


def _pair(path: Path, entries: Sequence[_Entry]) -> tuple[str, str]:
    """The two systems, in the order of the first entry."""
    pair = entries[0].names
    if pair[0] == pair[1]:
        raise InputError(f"{path}: compares {pair[0]} with itself; two systems are needed")
    for number, entry in enumerate(entries):
        if set(entry.names) != set(pair):
            told = " with ".join(entry.names)
            raise InputError(f"{path}: entry {number + 1} compares {told}, others {pair[0]} with {pair[1]}; give one file for each pair")
    return pair


def _alpaca(path: Path, number: int, entry: dict[str, Any]) -> _Entry:
    where = f"{path}: entry {number + 1}"
    texts = _texts(where, entry, ("instruction", "output_1", "output_2", "generator_1", "generator_2"))
    if "preference" not in entry:
        raise InputError(f"{where} lacks preference")
    value = entry["preference"]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        preference = math.nan
    elif isinstance(value, bool) or not isinstance(value, int | float) or not (1 <= value <= 2 or value == 0):
        raise InputError(f"{where}: preference {json.dumps(value)} is not between 1 and 2, nor 0 for a tie, nor null")
    else:
        preference = 0.5 if value == 0 else value - 1.0
    index = entry.get("index")
    return _Entry(
        instruction=texts[0], index=index if isinstance(index, int) else number, names=(texts[3], texts[4]),
        lengths=(len(texts[1]), len(texts[2])), annotator=str(entry.get("annotator", "")), preference=preference,
    )  # fmt: skip


def _wildbench(path: Path, number: int, entry: dict[str, Any]) -> _Entry:
    where = f"{path}: entry {number + 1}"
    session, first, second, winner = _texts(where, entry, ("session_id", "model_A", "model_B", "winner"))
    outputs = entry["model_outputs"]
    if not isinstance(outputs, dict) or not all(isinstance(outputs.get(name), str) for name in (first, second)):
        raise InputError(f"{where}: model_outputs lacks the text of {first} or of {second}")
    extent: Any = entry.get("extent")
    if winner != "tie" and (winner not in (first, second) or extent not in (1, 2)):
        raise InputError(f"{where}: winner {winner} with extent {json.dumps(extent)}; a name or tie, and 1 or 2, are known")
    texts = outputs[first], outputs[second]
    if any(text.endswith(_CUT) or text == _EMPTY for text in texts):  # WildBench's leaderboard leaves these out, too
        preference = math.nan
    else:
        preference = 0.5 if winner == "tie" else 0.5 + (1 if winner == second else -1) * extent / 4
    lengths = (len(texts[0]), len(texts[1]))
    return _Entry(
        instruction=session, index=number, names=(first, second), lengths=lengths, annotator=_part(path, "eval="), preference=preference
    )


def _texts(where: str, entry: dict[str, Any], keys: Sequence[str]) -> list[str]:
    return list(_checked(where, entry, keys))


def _checked(where: str, entry: dict[str, Any], keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        if key not in entry:
            raise InputError(f"{where} lacks {key}")
        if not isinstance(entry[key], str):
            raise InputError(f"{where}: {key} is {_name(entry[key])}, not text")
        yield entry[key]


def _name(value: Any) -> str:
    """What a JSON value is called."""
    if value is None:
        return "null"
    return {bool: "a truth value", list: "a list", dict: "an object", str: "text"}.get(type(value), "a number")


_CUT, _EMPTY = "... (truncated)", "[This model response is empty.]"
_FORMATS = (
    ({"instruction", "output_1", "output_2", "generator_1", "generator_2", "preference"}, _alpaca),
    ({"session_id", "model_A", "model_B", "model_outputs", "winner"}, _wildbench),
)

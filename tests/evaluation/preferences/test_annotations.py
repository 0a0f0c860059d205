"""Formats, and what is refused."""

import json

import numpy as np
import pytest

from longreach.core.errors import InputError
from longreach.evaluation.preferences.annotations import read_annotations
from tests.evaluation.preferences.simulated import entries, simulated, written


def good(count=30):
    return entries(simulated(0, count))


def test_alpacaeval_json_and_json_lines(tmp_path):
    made = good()
    made[8]["output_1"] += "\u2028"  # no end of a line in JSON
    made[0]["preference"], made[1]["preference"], made[2]["preference"], made[3]["preference"] = None, 0, 1.5, 1.25
    del made[4]["index"]
    made[5]["index"] = 77
    found = read_annotations(written(tmp_path / "annotations.json", made))
    assert (found.system, found.baseline, found.annotator) == ("tested", "base", "judge")
    assert np.isnan(found.preference[0])
    assert found.preference[1:4].tolist() == [0.5, 0.5, 0.25]
    assert found.judged.sum() == 29
    assert found.index[4:6] == (4, 77)
    assert found.lengths[7] == len(made[7]["output_2"])
    assert found.longer[7] == len(made[7]["output_2"]) - len(made[7]["output_1"])
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps(each, ensure_ascii=False) for each in made) + "\n\n", encoding="utf-8")
    lines = read_annotations(tmp_path / "lines.jsonl")
    assert np.array_equal(lines.preference, found.preference, equal_nan=True)


def test_either_system_can_be_the_baseline(tmp_path):
    made = good()
    path = written(tmp_path / "a.json", made)
    one, other = read_annotations(path), read_annotations(path, "tested")
    assert (other.system, other.baseline) == ("base", "tested")
    assert other.preference.tolist() == (1 - one.preference).tolist()
    assert other.longer.tolist() == (-one.longer).tolist()
    flip = made[3]
    for key in ("output", "generator"):
        flip[f"{key}_1"], flip[f"{key}_2"] = flip[f"{key}_2"], flip[f"{key}_1"]
    flip["preference"] = 3 - flip["preference"]
    mixed = read_annotations(written(tmp_path / "b.json", made))
    assert mixed.preference.tolist() == one.preference.tolist()
    assert mixed.longer.tolist() == one.longer.tolist()


def pairwise(winner, extent, a="first model", b="ref/base", text_a="long text", text_b="short"):
    outputs = {a: text_a, b: text_b}
    return {"session_id": "s", "model_A": a, "model_B": b, "winner": winner, "extent": extent, "model_outputs": outputs}


def test_wildbench_pairwise_results(tmp_path):
    flipped = {**pairwise("first model", 1), "model_A": "ref/base", "model_B": "first model"}
    made = [
        pairwise("first model", 2), pairwise("first model", 1), pairwise("tie", 0), pairwise("ref/base", 1), pairwise("ref/base", 2),
        flipped, pairwise("first model", 2, text_a="cut ... (truncated)"), pairwise("tie", 0, text_b="[This model response is empty.]"),
    ]  # fmt: skip
    folder = tmp_path / "eval=judge" / "ref=base"
    folder.mkdir(parents=True)
    found = read_annotations(written(folder / "model.json", made))
    assert (found.system, found.baseline, found.annotator) == ("first model", "ref/base", "judge")
    assert found.preference[:6].tolist() == [1, 0.75, 0.5, 0.25, 0, 0.75]
    assert np.isnan(found.preference[6:]).all()
    assert found.longer[5] == 4
    loose = written(tmp_path / "model.json", made)
    with pytest.raises(InputError, match="say with --baseline which of first model and ref/base"):
        read_annotations(loose)
    assert read_annotations(loose, "first model").system == "ref/base"


def changed(number, **values):
    made = good()
    made[number].update(values)
    return made


WRONG = {
    "no list of annotations": [],
    "entry 1 is no annotation of AlpacaEval's .it lacks preference.": [{k: v for k, v in good()[0].items() if k != "preference"}],
    "entry 2 is a number, not an object": [good()[0], 3],
    "entry 4 lacks output_2": [*good()[:3], {k: v for k, v in good()[3].items() if k != "output_2"}],
    "entry 3: output_1 is null, not text": changed(2, output_1=None),
    "entry 5: preference 2.5 is not between 1 and 2": changed(4, preference=2.5),
    "entry 6: preference 0.5 is not between 1 and 2": changed(5, preference=0.5),
    'entry 7: preference "A" is not between 1 and 2': changed(6, preference="A"),
    "entry 8: preference true is not between": changed(7, preference=True),
    "several annotators, human, judge": changed(8, annotator="human"),
    "entry 9 compares base with third, others base with tested": changed(8, generator_2="third"),
    "compares base with itself": [{**each, "generator_2": "base"} for each in good()],
    "no entry has a preference": [{**each, "preference": None} for each in good()],
    "entry 2: winner nobody with extent 1": [pairwise("tie", 0), pairwise("nobody", 1)],
    "entry 2: winner first model with extent 3": [pairwise("tie", 0), pairwise("first model", 3)],
    "entry 1: model_outputs lacks the text of other": [{**pairwise("tie", 0), "model_A": "other"}],
}


@pytest.mark.parametrize("told", WRONG)
def test_what_does_not_fit_is_refused_by_entry(told, tmp_path):
    with pytest.raises(InputError, match=told) as caught:
        read_annotations(written(tmp_path / "wrong.json", WRONG[told]))
    assert "wrong.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_json_is_refused(tmp_path):
    for name, content, told in (
        ("text.json", b"instruction,output\n", "not JSON"),
        ("cut.json", json.dumps(good()).encode()[:-40], "not JSON"),
        ("bytes.json", b"\xff\xfe\x00", "not UTF-8"),
        ("torn.jsonl", json.dumps(good()[0]).encode() + b"\n{", "line 2 is not JSON"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=told):
            read_annotations(tmp_path / name)
    with pytest.raises(InputError, match="none.json: No such file"):
        read_annotations(tmp_path / "none.json")
    with pytest.raises(InputError, match="third is not in it; it compares tested with base"):
        read_annotations(written(tmp_path / "a.json", good()), "third")

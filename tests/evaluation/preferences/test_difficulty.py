"""Difficulties: the joint model, and files of them."""

import numpy as np
import pytest

from longreach.core.errors import InputError
from longreach.evaluation.preferences.difficulty import joint_difficulty, length_feature, read_difficulty, read_gamed
from tests.evaluation.preferences.simulated import sigmoid, simulated


def test_the_mode_of_the_joint_model_has_no_slope():
    hardness = np.random.default_rng(0).normal(0, 1.5, 80)
    files = [simulated(n, 80, quality=n - 1.0, effect=1.0, hardness=hardness, name=str(n)) for n in range(4)]
    found = joint_difficulty(files)
    assert list(found) == list(files[0].instructions)
    d = np.array(list(found.values()))
    # The slope in each difficulty, with each system's own two numbers at their best for these difficulties.
    slope = 0.3 * d
    for file in files:
        x = np.stack([length_feature(file), np.ones(80)], axis=1)
        w = np.zeros(2)
        for _ in range(50):
            chance = sigmoid(x @ w + d)
            gradient = x.T @ (chance - file.preference) + 1e-3 * w
            w -= np.linalg.solve((x * (chance * (1 - chance))[:, None]).T @ x + 1e-3 * np.eye(2), gradient)
        slope += sigmoid(x @ w + d) - file.preference
    assert np.abs(slope).max() < 1e-6
    assert np.corrcoef(d, hardness)[0, 1] > 0.6


def test_files_of_difficulties(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("index,instruction_difficulty\n0,1.5\n1,-0.25\n", encoding="utf-8")
    assert read_difficulty(path) == {0: 1.5, 1: -0.25}
    path.write_text(
        ",model,index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline\n"
        "0,v,0,0.75,-2.0,1.5,False\n1,c,0,0.25,0.5,1.5,False\n",
        encoding="utf-8",
    )
    gamed = read_gamed(path)
    assert gamed.feature == pytest.approx(np.tanh([2.0, -0.5]))  # theirs is the baseline's length less the system's
    assert gamed.preference.tolist() == [0.75, 0.25]
    assert gamed.by_index == {0: 1.5}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a,b\n1,2\n", "columns index, instruction_difficulty, std_delta_len, preference is wanted"),
        ("", "is wanted"),
        ("index,instruction_difficulty,std_delta_len,preference\n0,1,2,1.5\n", "a preference is not between 0 and 1"),
        ("index,instruction_difficulty,std_delta_len,preference\n0,1,2,0.5\n0,,2,0.5\n", "line 3 has no number"),
        ("index,instruction_difficulty,std_delta_len,preference\n0,nan,2,0.5\n", "line 2 has no number"),
        ("index,instruction_difficulty,std_delta_len,preference\n0,1\n", "line 2 has no number"),
    ],
)
def test_other_files_are_refused(content, told, tmp_path):
    path = tmp_path / "gamed.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=told):
        read_gamed(path)

"""Lines of a comparison, from what `longreach compare --json` prints."""

import json

from longreach.reports.comparison import comparison_tables

INTERVAL = {"mean": 0.5, "low": 0.4, "high": 0.6}
TOLD = {
    "model": "nano",
    "target": 2048,
    "tuned": {"steps": 30, "lr": None, "full": True, "data": "books"},
    "frozen": ["sinks"],
    "tasks": {"needle": "accuracy"},
    "at_chance": ["passkey"],
    "passages": 20,
    "ranks": [
        {"method": "yarn:factor=4", "score": INTERVAL, "behind": None, "noise": False, "by_length": {"2048": 0.25, "512": 0.75}},
        {"method": "sinks", "score": INTERVAL, "behind": INTERVAL, "noise": False, "by_length": {"2048": 0.1, "512": 0.9}},
        {"method": "", "score": INTERVAL, "behind": INTERVAL, "noise": True, "by_length": {"2048": -0.004, "512": 1.0}},
    ],
    "losses": {
        "": {"mean": 4.0, "above": [0.1, 0.2]},
        "sinks": {"mean": 3.5, "above": [0.1, 0.2]},
        "yarn:factor=4": {"mean": 3.0, "above": None},
    },
    "agreement": 1.0,
    "left_out": {"gali": "no room"},
}


def test_a_table_has_the_command_the_methods_by_rank_and_what_is_noise(tmp_path):
    file = tmp_path / "nano.json"
    file.write_text(json.dumps(TOLD))
    lines = comparison_tables([file]).splitlines()
    assert lines[0] == '`longreach compare nano --to 2k --method "sinks yarn:factor=4" --data FOLDER --steps 30 --full`:'
    assert lines[2] == "| method | score | behind | 512 | 2k | loss |"
    assert lines[4:7] == [
        "| `yarn:factor=4` | 0.50 (0.40-0.60) | first | 0.75 | 0.25 | 3.000 |",
        "| `sinks` (not tuned) | 0.50 (0.40-0.60) | 0.50 | 0.90 | 0.10 | 3.500 |",
        "| stock | 0.50 (0.40-0.60) | ~0.50 | 1.00 | 0.00 | 4.000 |",
    ]
    assert "20 passages" in lines[8]
    assert "At chance under every method: passkey." in lines[8]
    assert "agree by +1.00" in lines[8]
    assert "Nothing can be tuned under sinks: compared on the base model." in lines[8]
    assert "gali is left out: no room." in lines[8]


def test_methods_at_chance_are_told_by_their_loss(tmp_path):
    file = tmp_path / "nano.json"
    file.write_text(json.dumps({**TOLD, "ranks": [], "tuned": None, "frozen": []}))
    shown = comparison_tables([file])
    assert "|" not in shown
    assert "By loss:   3.000  yarn:factor=4   3.500  sinks   4.000  stock" in shown

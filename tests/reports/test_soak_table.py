"""The table of a million tokens shows steps that are four times apart."""

import json

from longreach.reports.soak_table import soak_table


def test_steps_are_shown_from_the_first_on_that_counts(tmp_path):
    steps = [{"tokens": 16384 << n, "mib": 800 + n, "ms": 0.5, "found": n % 2, "facts": 8} for n in range(7)]
    run = {"model": "m", "spec": "sinks:num_sinks=4", "text": "standard library", "steps": steps}
    short = {**run, "spec": "full", "steps": steps[:3]}
    for name, one in (("a", run), ("b", short)):
        (tmp_path / f"m-{name}.json").write_text(json.dumps(one))
    lines = soak_table(tmp_path).splitlines()
    assert lines[1] == "| method | text | 65,536 tokens | 262,144 tokens | 1,048,576 tokens |"
    assert lines[3].endswith("| 802 MiB, 0.50 ms, 0 of 8 | 804 MiB, 0.50 ms, 0 of 8 | 806 MiB, 0.50 ms, 0 of 8 |")
    assert lines[4] == "| `full` | standard library | 802 MiB, 0.50 ms, 0 of 8 |  |  |"

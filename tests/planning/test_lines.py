import json
from dataclasses import asdict

import pytest

from longreach.planning.lines import lines_of, plan_table
from longreach.planning.plan import PlannedMethod, ResourcePlan

ROW = PlannedMethod(
    spec="", fits=True, reading=50_000_000, answered=60_000_000, peak=2_500_000_000, host=0, disk=0, longest=4000, largest_batch=7,
    reach=512, reaches=False, lost=(), prefill_seconds=0.31, tokens_per_second=5.04, error=0.0,
)  # fmt: skip


def planned(*changes, **more):
    methods = tuple(PlannedMethod(**{**asdict(ROW), **change}) for change in changes)
    common = {"model": "tiny", "context": 4096, "batch": 1, "new_tokens": 256, "dtype": "float32", "device": "cpu", "weights": 1000}
    more = {"weights_here": True, "memory": 2 << 30, "window": 512, "flops": 1e12, "reads": 1e11, "measured_tokens": None, **more}
    return ResourcePlan(**common, **more, methods=methods)


def test_each_number_in_the_unit_that_people_read():
    ((row, cells),) = lines_of(planned({}))
    assert row == ROW
    assert cells == {
        "method": "as it is", "fits": "yes", "reach": "512", "peak": "2.5 GB", "cache": "50.0 MB", "after": "60.0 MB", "longest": "4000",
        "batch": "7", "prefill": "0.31 s", "tokens/s": "5", "loses": "nothing",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "column", "shown"),
    [
        ({"prefill_seconds": 9.94}, "prefill", "9.9 s"), ({"prefill_seconds": 112.0}, "prefill", "112 s"),
        ({"prefill_seconds": 121.0}, "prefill", "2 min"), ({"prefill_seconds": 8000.0}, "prefill", "2.2 h"),
        ({"tokens_per_second": 1234.5}, "tokens/s", "1,200"), ({"tokens_per_second": 43.21}, "tokens/s", "43"),
        ({"longest": None}, "longest", "no end"), ({"longest": 0}, "longest", "?"), ({"longest": 1 << 20}, "longest", "1024k"),
        ({"reaches": True, "reach": None}, "reach", "all"), ({"fits": False}, "fits", "no"),
        ({"error": 0.02}, "peak", "~2.5 GB"), ({"error": None}, "peak", "2.5 GB"), ({"host": 90_000_000, "disk": 1}, "outside", "90.0 MB"),
        ({"lost": ("text", "positions")}, "loses", "text, positions"),
    ],
)  # fmt: skip
def test_what_a_cell_says(change, column, shown):
    ((_, cells),) = lines_of(planned(change))
    assert cells[column] == shown


def test_methods_of_the_same_numbers_are_one_line_unless_they_were_timed():
    rows = ({"spec": "yarn:factor=8"}, {"spec": "ntk:factor=8"}, {"spec": "sinks:window_size=500", "peak": 1})
    assert [cells["method"] for _, cells in lines_of(planned(*rows))] == ["yarn:factor=8 and 1 more", "sinks:window_size=500"]
    assert len(lines_of(planned(*rows, measured_tokens=64))) == 3


def test_a_page_has_the_table_and_the_command_but_nothing_that_hangs_on_the_machine(tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(asdict(planned({}, {"spec": "yarn:factor=8", "reaches": True}, {"spec": "ntk:factor=8", "reaches": True}))))
    assert plan_table(file).splitlines() == [
        "This is what `longreach plan FOLDER --context 4k --memory 2GiB --dtype float32`",
        "prints of tiny (window 512), but for speed:",
        "",
        "| method | reach | peak | cache | after | longest | batch | loses |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| as it is | 512 | 2.5 GB | 50.0 MB | 60.0 MB | 4000 | 7 | nothing |",
        "| `yarn:factor=8` and 1 more | all | 2.5 GB | 50.0 MB | 60.0 MB | 4000 | 7 | nothing |",
    ]

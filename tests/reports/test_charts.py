"""Lines of a chart are labelled where they end."""

import re
from itertools import pairwise

from longreach.reports._charts import Point, Series, apart, line_chart, wrapped


def chart(*lines):
    """A chart of named values, up to 64 and up to 128 tokens."""
    series = [
        Series(label=label, number=number, points=[Point(end=64, value=first), Point(end=128, value=last)])
        for number, (label, first, last) in enumerate(lines)
    ]
    return line_chart(series, title="Loss", window=64, limit=0.05, key="k")


def labels(svg):
    """The name beside each line and the height that it stands at, from above."""
    found = re.findall(r'<text class="name" x="[^"]*" y="([^"]*)">(.*?)</text>', svg)
    return [(" ".join(re.findall(r"<tspan[^>]*>(.*?)</tspan>", words)), float(y)) for y, words in found]


def test_methods_that_break_down_leave_the_chart_and_say_how_far():
    assert [name for name, _ in labels(chart(("good", 0.0, 0.1), ("broken", 0.0, 8.25)))] == ["broken (off the chart: up to 8.25)", "good"]


def test_labels_stand_in_the_order_of_the_lines_and_do_not_touch():
    names, heights = zip(*labels(chart(*((f"line{n}", 0.0, 0.001 * n) for n in range(8)))), strict=True)
    assert names == tuple(f"line{n}" for n in reversed(range(8)))
    assert all(lower - upper >= 16 for upper, lower in pairwise(heights))
    assert max(heights) < 420


def test_boxes_are_moved_apart_and_back_from_the_end():
    assert apart([0, 50], [10, 10], 100) == [0, 50]
    assert apart([50, 52, 54], [10, 20, 10], 100) == [50, 60, 80]
    assert apart([85, 92, 99], [10, 10, 10], 100) == [70, 80, 90]
    assert apart([5, 92, 99], [10, 10, 10], 100) == [5, 80, 90]


def test_long_labels_are_broken_at_their_marks():
    assert wrapped("self_extend:neighbours=1024,group=6+log_n, tuned 300 steps") == [
        "self_extend:neighbours=1024,",
        "group=6+log_n, tuned 300 steps",
    ]

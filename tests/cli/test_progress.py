import io

from longreach.cli._progress import BarProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_elsewhere_than_on_a_terminal_a_line_comes_now_and_then():
    stream, clock = io.StringIO(), Clock()
    with BarProgress(stream, every=10, clock=clock) as progress:
        progress.start("measuring", 1000)
        for _ in range(10):
            clock.now += 6
            progress.advance(100)
    assert stream.getvalue().splitlines() == [
        "measuring ... 20%, 0:48 left",
        "measuring ... 40%, 0:36 left",
        "measuring ... 60%, 0:24 left",
        "measuring ... 80%, 0:12 left",
        "measuring ... 100%, 0:00 left",
    ]


def test_short_work_says_nothing():
    stream, clock = io.StringIO(), Clock()
    with BarProgress(stream, clock=clock) as progress:
        progress.start("reading", 10)
        clock.now += 1
        progress.advance(10)
    assert stream.getvalue() == ""


def test_long_waits_are_minutes():
    stream, clock = io.StringIO(), Clock()
    with BarProgress(stream, clock=clock) as progress:
        progress.start("reading", 100)
        clock.now += 60
        progress.advance(1)
    assert stream.getvalue() == "reading ... 1%, 99:00 left\n"


def test_a_second_start_begins_anew():
    stream, clock = io.StringIO(), Clock()
    with BarProgress(stream, clock=clock) as progress:
        progress.start("reading", 100)
        clock.now += 9
        progress.advance(50)
        progress.start("writing", 100)
        clock.now += 10
        progress.advance(10)
    assert stream.getvalue() == "writing ... 10%, 1:30 left\n"


def test_a_terminal_gets_a_bar_that_leaves_no_trace():
    stream = Terminal()
    with BarProgress(stream) as progress:
        progress.start("reading [x]", 100)
        progress.advance(50)
        progress.advance(50)
        drawn = stream.getvalue()
        assert "reading [x]" in drawn
        assert "100%" in drawn
        after = len(drawn)
        progress.advance(1)  # more than was said: the bar is gone already
        assert len(stream.getvalue()) == after


def test_a_bar_is_gone_after_an_exception_too():
    stream, progress = Terminal(), None
    try:
        with BarProgress(stream) as progress:
            progress.start("reading", 100)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        ended = len(stream.getvalue())
    progress.advance(10)
    assert len(stream.getvalue()) == ended


def test_progress_that_nobody_started_is_not_drawn():
    stream, clock = io.StringIO(), Clock()
    with BarProgress(stream, clock=clock) as progress:
        clock.now += 100
        progress.advance(10)
    assert stream.getvalue() == ""


def test_work_can_be_named_at_once():
    stream, clock = io.StringIO(), Clock()
    with BarProgress(stream, at_once=True, clock=clock) as progress:
        progress.start("loading", 0)
        assert stream.getvalue() == "loading ...\n"
        progress.start("reading", 100)
        clock.now += 60
        progress.advance(50)
    assert stream.getvalue() == "loading ...\nreading ...\nreading ... 50%, 1:00 left\n"


def test_work_of_unknown_length_has_a_bar_without_a_share():
    stream = Terminal()
    with BarProgress(stream, at_once=True) as progress:
        progress.start("loading", 0)
    assert "loading" in stream.getvalue()
    assert "%" not in stream.getvalue()

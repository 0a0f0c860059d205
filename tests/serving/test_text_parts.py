import json

import pytest

from longreach.serving.stops import StopText
from longreach.serving.tools import CallParser


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("text", "stops", "wanted"),
    [
        ("one two three", ("two",), "one "),
        ("one two three", ("xyz",), "one two three"),
        ("aaab", ("aab",), "a"),
        ("ends with a half stop: <|en", ("<|end|>",), "ends with a half stop: <|en"),
        ("first of several", ("several", "of"), "first "),
        ("stop", ("stop",), ""),
        ("é\nUser: more", ("\nUser:", "\nTool:"), "é"),
    ],
)
def test_texts_end_before_a_stop_however_they_come(text, stops, wanted, size):
    stop = StopText(stops)
    found = "".join([*(stop.push(text[at : at + size]) for at in range(0, len(text), size)), stop.end()])
    assert found == wanted
    assert stop.found == (wanted != text)


def test_only_what_may_begin_a_stop_waits():
    stop = StopText(("<end>",))
    assert [stop.push(piece) for piece in ("a", "b<", "e", "x", "<en", "d>", "more")] == ["a", "b", "", "<ex", "", "", ""]
    assert stop.found
    assert stop.end() == ""


def test_white_space_before_a_text_is_left_out_where_that_is_asked_for():
    stop = StopText((), strips=True)
    assert [stop.push(piece) for piece in (" ", "\n ", " a", " b ")] == ["", "", "a", " b "]


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "é"}}\n</tool_call>'


@pytest.mark.parametrize("size", [1, 3, 11, 500])
def test_calls_are_found_however_they_come(size):
    text = f"Let me see. {CALL}{CALL} done <tool"
    parser = CallParser()
    parts = [part for at in range(0, len(text), size) for part in parser.push(text[at : at + size])] + parser.end()
    calls = [part for part in parts if not isinstance(part, str)]
    assert "".join(part for part in parts if isinstance(part, str)) == "Let me see.  done <tool"
    assert [call["function"]["name"] for call in calls] == ["add", "add"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"a": 1, "b": "é"}
    assert len({call["id"] for call in calls}) == 2
    assert parser.calls == 2


@pytest.mark.parametrize(
    "text",
    ["<tool_call>no json</tool_call>", '<tool_call>{"arguments": {}}</tool_call>', "<tool_call>[1]</tool_call>", '<tool_call>{"name": "a"'],
)
def test_what_is_no_call_stays_text(text):
    parser = CallParser()
    assert "".join(map(str, [*parser.push(text), *parser.end()])) == text
    assert not parser.calls

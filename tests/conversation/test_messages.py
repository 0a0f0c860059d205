import json

import pytest

from longreach.conversation.messages import check_messages, load_messages, save_messages, split
from longreach.core.errors import InputError
from tests.conversation.talks import CALL, TOOLS

USER, ANSWER = {"role": "user", "content": "é"}, {"role": "assistant", "content": "b"}
SYSTEM = {"role": "system", "content": "s"}


def test_a_turn_goes_from_one_message_of_the_user_to_the_next():
    greeting = {"role": "assistant", "content": "hello"}
    assert split([SYSTEM, SYSTEM, USER, *TOOLS, ANSWER, USER]) == ([SYSTEM, SYSTEM], [[USER, *TOOLS, ANSWER], [USER]])
    assert split([greeting, USER, ANSWER]) == ([], [[greeting, USER, ANSWER]])
    assert split([USER, USER]) == ([], [[USER], [USER]])
    assert split([]) == ([], [])


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (["hi"], "message 1 has no role"),
        ([USER, {"role": "robot", "content": "a"}], "message 2 has no role; .* user, assistant, tool"),
        ([{"role": "user", "content": 3}], "message 1: its content is a text, not a int"),
        ([{"role": "user"}], "the message is empty"),
        ([{"role": "assistant"}], "message 1 of the assistant has neither content nor tool_calls"),
        ([USER, {"role": "tool", "content": "x"}], "a tool's result has to follow"),
        ([USER, TOOLS[0], {"role": "tool"}], "message 3 of a tool has no content"),
        ([USER, TOOLS[0], USER], "the assistant called tools, and 1 of their results are missing"),
        ([{**USER, "tool_calls": [CALL]}], "tool_calls are a list of calls, of a message of the assistant"),
    ],
)
def test_what_is_no_conversation_is_refused(messages, says):
    with pytest.raises(InputError, match=says):
        check_messages(messages)


def test_messages_are_kept_in_a_file(tmp_path):
    messages = [SYSTEM, USER, *TOOLS, ANSWER]
    save_messages(tmp_path / "talk.json", messages)
    assert load_messages(tmp_path / "talk.json") == messages
    assert "é" in (tmp_path / "talk.json").read_text(encoding="utf-8")
    with pytest.raises(InputError, match=r"cannot write .*nowhere.*: No such file"):
        save_messages(tmp_path / "nowhere" / "talk.json", messages)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON; it has to be a list of messages"),
        ("{}", "holds a dict; it has to be a list"),
        (json.dumps([{"role": "user", "content": ""}]), "talk.json: the message is empty"),
        (b"\xff", "is not JSON"),
        (None, "cannot read .*: No such file"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path, content, says):
    path = tmp_path / "talk.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=says):
        load_messages(path)

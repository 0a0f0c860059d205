import json
import threading
from contextlib import suppress
from datetime import datetime

import pytest

from longreach.core.errors import InputError
from longreach.endpoint.base import ChatModel, Completion, Request
from longreach.endpoint.errors import ContextLengthError, EndpointError
from longreach.endpoint.recording import Recording, key_of
from longreach.testing.endpoint_server import EndpointServer, Fault
from tests.endpoint.clock import HELLO, endpoint_at


@pytest.fixture
def path(tmp_path):
    return tmp_path / "calls" / "log.jsonl"


class Counting(ChatModel):
    """Answers with the number of the call; a model in this process."""

    name = "counting"
    concurrency = 2

    def __init__(self):
        self.asked = []

    def ask(self, request):
        self.asked.append(request)
        return Completion(text=str(len(self.asked)), finish_reason="stop", seconds=0.5)

    def count(self, text):
        return len(text)


def test_calls_are_written_down_and_answered_again_offline(path):
    with EndpointServer(lambda body: f"You said {body['messages'][-1]['content']}.") as server, endpoint_at(server) as endpoint:
        recording = Recording(path, endpoint)
        first = recording.chat(HELLO, most_tokens=9, logprobs=1)
        (line,) = path.read_text().splitlines()
    offline = Recording(path)
    assert offline.name == "stub"
    assert offline.chat(HELLO, most_tokens=9, logprobs=1) == first
    assert first.text == "You said Hello there."
    written = json.loads(line)
    assert list(written) == ["key", "at", "model", "request", "answer", "error"]
    assert written["request"]["messages"] == list(HELLO)
    assert written["answer"]["text"] == first.text
    assert datetime.fromisoformat(written["at"]).utcoffset().total_seconds() == 0


def test_a_stopped_run_goes_on_without_paying_twice(path):
    prompts = [Request(prompt=str(number), most_tokens=1) for number in range(6)]
    first, second = Counting(), Counting()
    some = [each.text for each in Recording(path, first).many(prompts[:4])]
    everything = [each.text for each in Recording(path, second).many(prompts)]
    assert len(first.asked) == 4
    assert everything[:4] == some
    assert {request.prompt for request in second.asked} == {"4", "5"}
    assert [each.text for each in Recording(path).many(prompts)] == everything


def test_the_same_greedy_request_is_asked_once(path):
    model = Counting()
    recording = Recording(path, model)
    assert [recording.complete("a", most_tokens=1).text for _ in range(3)] == ["1"] * 3
    assert [recording.complete("a", most_tokens=1, temperature=1, seed=5).text for _ in range(3)] == ["2"] * 3
    assert len(model.asked) == 2


def test_who_asks_for_what_is_being_asked_waits_for_its_answer(path):
    second = threading.Barrier(2)

    class Slow(Counting):
        def ask(self, request):
            answer = super().ask(request)
            with suppress(threading.BrokenBarrierError):  # nobody else comes
                second.wait(0.05)
            return answer

    model = Slow()
    assert [each.text for each in Recording(path, model).many([Request(prompt="a", most_tokens=1)] * 5)] == ["1"] * 5
    assert len(model.asked) == 1


def test_who_waited_for_what_failed_asks_again(path):
    with EndpointServer(faults={0: Fault.error(400, "no")}) as server, endpoint_at(server, concurrency=2) as endpoint:
        first, second = Recording(path, endpoint).many([Request(prompt="a", most_tokens=1)] * 2)
    assert {type(first), type(second)} == {EndpointError, Completion}
    assert len(server.posts) == 2


def test_samples_are_answered_as_often_as_they_were_drawn(path):
    def draw(recording, times):
        return [recording.complete("a", most_tokens=1, temperature=1).text for _ in range(times)]

    assert draw(Recording(path, Counting()), 2) == ["1", "2"]
    model = Counting()
    resumed = Recording(path, model)
    assert draw(resumed, 4) == ["1", "2", "1", "2"]  # two of the file, and two new ones
    assert len(model.asked) == 2
    offline = Recording(path)
    assert draw(offline, 4) == ["1", "2", "1", "2"]
    with pytest.raises(InputError, match="has no such call"):
        draw(offline, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "Hello"}]}, {"messages": [{"role": "system", "content": "Hello there"}]},
        {"most_tokens": 2}, {"temperature": 0.5}, {"seed": 1}, {"stop": "a"}, {"prefix": "a"}, {"logprobs": 0},
        {"messages": (), "prompt": "Hello there"},
    ],
)  # fmt: skip
def test_everything_in_a_request_tells_it_apart(change):
    request = {"messages": HELLO, "most_tokens": 1}
    assert key_of("a", Request(**request)) != key_of("a", Request(**{**request, **change}))
    assert key_of("a", Request(**request)) != key_of("b", Request(**request))


def test_how_a_request_is_written_does_not():
    usual = Request(messages=HELLO, most_tokens=1, temperature=1.0, stop=("a",))
    other = Request(messages=[{"content": "Hello there", "role": "user"}], most_tokens=1, temperature=1, stop="a")
    assert key_of("a", usual) == key_of("a", other)


def test_offline_a_request_that_was_not_recorded_is_refused(path):
    Recording(path, Counting()).complete("a", most_tokens=1)
    with pytest.raises(InputError, match=r"log\.jsonl has no such call \('Hello there'\); it replays a run as it was"):
        Recording(path).chat(HELLO, most_tokens=1)
    with pytest.raises(InputError, match=r"\('x{59}…'\)"):
        Recording(path).complete("x" * 1000, most_tokens=1)


def test_failures_are_written_down_asked_again_and_raised_again_offline(path):
    long = Request(prompt="a long prompt", most_tokens=1)
    with EndpointServer(most_characters=10, faults={1: Fault.error(400, "no")}) as server, endpoint_at(server) as endpoint:
        with pytest.raises(ContextLengthError) as first:
            Recording(path, endpoint).ask(long)
        with pytest.raises(EndpointError, match="400: no"):
            Recording(path, endpoint).ask(long)
        with pytest.raises(ContextLengthError):
            Recording(path, endpoint).ask(long)
        assert len(server.posts) == 3
        with pytest.raises(ContextLengthError) as again:
            Recording(path).ask(long)
        assert vars(again.value) == vars(first.value)
        assert str(again.value) == str(first.value)
        server.most_characters = 100
        assert Recording(path, endpoint).ask(long).text == "yes"
    assert Recording(path).ask(long).text == "yes"


def test_a_torn_last_line_is_asked_again(path):
    Recording(path, Counting()).complete("a", most_tokens=1)
    Recording(path, Counting()).complete("b", most_tokens=1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    model = Counting()
    recording = Recording(path, model)
    assert recording.healed
    assert [recording.complete(text, most_tokens=1).text for text in "ab"] == ["1", "1"]
    assert [request.prompt for request in model.asked] == ["b"]
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "text",
    [
        "prose\n",
        "{}\n",
        "[]\n",
        '{"key": "counts", "model": "a", "window": null, "tokens": {"a": "b"}}\n',
        '{"key": "a"}\n',
        '{"key": 1, "answer": {"text": 1}, "error": null}\n',
    ],
)
def test_other_files_are_refused(path, text):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(InputError, match="line 1 is not a call"):
        Recording(path, Counting())
    assert path.read_text() == text


def test_a_recording_of_several_models_needs_a_name(path):
    other = Counting()
    other.name = "other"
    for model in (Counting(), other):
        Recording(path, model).complete("a", most_tokens=1)
    with pytest.raises(InputError, match=r"has answers of counting, other; name one model \(--served-model\)"):
        Recording(path)
    assert Recording(path, model="other").complete("a", most_tokens=1).text == "1"
    with pytest.raises(InputError, match="the endpoint has its own"):
        Recording(path, other, model="other")


def test_offline_there_has_to_be_a_file(path):
    with pytest.raises(InputError, match="cannot read calls from"):
        Recording(path)
    path.parent.mkdir()
    path.touch()
    with pytest.raises(InputError, match="has no answers; name an endpoint"):
        Recording(path)


class Stating(Counting):
    """Counts, and states its window."""

    window = 64

    def __init__(self):
        super().__init__()
        self.counted = []

    def count(self, text):
        self.counted.append(text)
        return len(text)

    def count_chat(self, messages):
        return sum(len(message["content"]) for message in messages) + 3


def test_it_counts_as_its_model_does_and_asks_once(path):
    recording = Recording(path, model := Stating())
    assert [recording.count(text) for text in ("four", "four", "")] == [4, 4, 0]
    assert model.counted == ["four", ""]
    assert (recording.window, recording.concurrency, recording.name) == (64, 2, "counting")


def test_counts_and_the_window_are_known_offline(path):
    recording = Recording(path, Stating())
    asked = [recording.count("four"), recording.count("\ud800"), recording.count_chat(HELLO), recording.window]
    assert not path.exists()
    recording.complete("a", most_tokens=1)
    recording.count("later")
    recording.flush()
    offline = Recording(path)
    assert [offline.count("four"), offline.count("\ud800"), offline.count_chat(HELLO), offline.window] == asked
    assert (offline.count("later"), offline.concurrency, offline.complete("a", most_tokens=1).text) == (5, 1, "1")
    counted, _, later = map(json.loads, path.read_text().splitlines())
    assert (list(counted), len(counted["tokens"]), len(later["tokens"])) == (["key", "model", "window", "tokens"], 3, 1)
    assert "four" not in path.read_text()


def test_offline_what_was_not_counted_is_refused(path):
    recording = Recording(path, Stating())
    recording.count("four")
    recording.flush()
    with pytest.raises(InputError, match=r"log\.jsonl has no such call \('five'\); it replays a run as it was"):
        Recording(path).count("five")
    with pytest.raises(InputError, match="no such call"):
        Recording(path).count_chat(HELLO)


def test_what_is_counted_already_is_not_written_again(path):
    for _ in range(2):
        recording = Recording(path, Stating())
        assert (recording.count("four"), recording.window) == (4, 64)
        recording.flush()
    assert len(path.read_text().splitlines()) == 1


def test_recordings_without_counts_count_nothing_offline(path):
    Recording(path, Counting()).complete("a", most_tokens=1)
    offline = Recording(path)
    assert (offline.count("four"), offline.count_chat(HELLO), offline.window) == (None, None, None)


def test_an_endpoint_that_does_not_count_is_replayed_as_one(path):
    with EndpointServer() as server, endpoint_at(server) as endpoint:
        recording = Recording(path, endpoint)
        assert recording.count("a") is recording.count_chat(HELLO) is None
        recording.complete("a", most_tokens=1)
    assert Recording(path).count("another") is None


def test_counts_are_told_apart_by_model(path):
    for name, model in (("one", Stating()), ("other", Counting())):
        model.name = name
        recording = Recording(path, model)
        recording.count("four" if name == "one" else "fourteen")
        recording.complete("a", most_tokens=1)
    assert Recording(path, model="one").count("four") == 4
    with pytest.raises(InputError, match="no such call"):
        Recording(path, model="one").count("fourteen")

import traceback

import pytest

from longreach.endpoint.base import Request
from longreach.endpoint.errors import EndpointError
from longreach.endpoint.recording import Recording
from longreach.testing.endpoint_server import EndpointServer, Fault
from tests.endpoint.clock import HELLO, endpoint_at

KEY = "sk-0123456789abcdef"
FAULTS = {
    0: Fault.error(400, f"You sent Authorization: Bearer {KEY} with this"),
    1: Fault.error(400, f"{'x' * 285} {KEY}"),  # where the message is cut
    2: Fault.error(401, f"Incorrect API key provided: {KEY}"),
    3: Fault(body=f"<title>{'x' * 250} {KEY}</title>"),
    4: Fault(body={"ok": f"{'x' * 240} {KEY}"}),
    5: Fault.error(503, KEY),
    6: Fault(drop=True),
}


def test_the_key_is_sent_and_shown_nowhere(tmp_path, caplog, capfd):
    caplog.set_level("DEBUG")
    path = tmp_path / "log.jsonl"
    shown = []
    with EndpointServer(faults=FAULTS, key=KEY) as server, endpoint_at(server, api_key=KEY, retries=0) as endpoint:
        recording = Recording(path, endpoint)
        for number in range(len(FAULTS) + 1):
            try:
                shown.append(repr(recording.chat(HELLO, most_tokens=number + 1)))
            except EndpointError as error:
                shown += [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]
        shown += [
            repr(endpoint),
            repr(recording),
            repr(endpoint._http.headers),
            repr(list(recording.many([Request(prompt="a", most_tokens=1)]))),
        ]
    assert all(post.headers["authorization"] == f"Bearer {KEY}" for post in server.received)
    assert len(path.read_text().splitlines()) == len(FAULTS) + 2
    shown += [path.read_text(), caplog.text, *capfd.readouterr()]
    assert "[key]" in shown[0]
    for text in shown:
        assert KEY[:12] not in text


def test_a_key_that_is_sent_back_as_an_address_is_not_shown():
    fault = Fault(status=302, headers={"Location": f"https://other/?key={KEY}"}, body="")
    with (
        EndpointServer(faults={0: fault}) as server,
        endpoint_at(server, api_key=KEY) as endpoint,
        pytest.raises(EndpointError, match=r"302, sends on to https://other/\?key=\[key\]; give that address"),
    ):
        endpoint.chat(HELLO, most_tokens=1)


@pytest.mark.parametrize("name", ["LONGREACH_API_KEY", "OPENAI_API_KEY"])
def test_the_environment_has_the_key(monkeypatch, name):
    monkeypatch.setenv(name, KEY)
    with EndpointServer(key=KEY) as server, endpoint_at(server) as endpoint:
        assert endpoint.chat(HELLO, most_tokens=1).text == "yes"

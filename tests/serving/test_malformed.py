import httpx2

from longreach.testing.malformed import malformed_bodies


def test_nothing_that_is_sent_breaks_the_server(running):
    statuses = []
    with httpx2.Client(base_url=running[0], timeout=30) as http:
        for path, content in malformed_bodies(400, model="tiny", seed=7):
            reply = http.post(path, content=content)
            statuses.append(reply.status_code)
            assert reply.status_code in (200, 400, 404, 413), (path, content[:300], reply.text)
            if reply.status_code != 200:
                error = reply.json()["error"]
                assert error["message"]
                assert len(error["message"]) < 1000
                assert "\n" not in error["message"]
        sound = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
        assert http.post("/v1/chat/completions", json=sound).status_code == 200
    assert statuses.count(400) > 200

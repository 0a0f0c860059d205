"""A chat goes on from a document of a library as `longreach library ask` does, and from no other."""

import httpx2
import pytest
import torch

from longreach.checkpoints.checkpoint import Checkpoint
from longreach.engine.apply import apply
from longreach.library import Library
from tests.checkpoints.folders import tiny
from tests.conversation.talks import talker
from tests.library.documents import flipped_bit
from tests.serving.served import server

METHODS = ("", "linear:factor=2", "sinks:window_size=60")
TEXT, QUESTION = "Once upon a time there was a cache, and it was kept on disk.", "Where was it?"
NAMES = dict(zip(METHODS, ("story", "long story", "endless story"), strict=True))
ELSEWHERE = "linear:factor=3"


@pytest.fixture(scope="module")
def plain():
    return talker(template=None, max_position_embeddings=512)


@pytest.fixture(scope="module", params=["template", "plain"])
def checkpoint(request, loaded, plain):
    return loaded if request.param == "template" else plain


@pytest.fixture(scope="module")
def shelves(checkpoint, tmp_path_factory):
    made = Library(tmp_path_factory.mktemp("library"))
    for method in (*METHODS, ELSEWHERE):
        with apply(checkpoint.model, method):
            made.add(*checkpoint, TEXT, name=NAMES.get(method, "story of elsewhere"))
    return made


@pytest.fixture(scope="module")
def http(checkpoint, shelves):
    with server(checkpoint, METHODS[1:], library=shelves.folder) as (url, _, _), httpx2.Client(base_url=url, timeout=30) as found:
        yield found


def message(name, text=QUESTION, *more):
    parts = [{"type": "file", "file": {"file_id": f"library:{name}"}}, {"type": "text", "text": text}, *more]
    return {"role": "user", "content": parts}


def chat(http, *messages, **more):
    return http.post("/v1/chat/completions", json={"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 12, **more})


def from_library(shelves, checkpoint, method, question):
    with apply(checkpoint.model, method):
        return "".join(
            shelves.ask(NAMES[method], question=question, model=checkpoint.model, tokenizer=checkpoint.tokenizer, max_new_tokens=12)
        )


@pytest.mark.parametrize("method", METHODS)
def test_the_answer_is_that_of_the_library(http, shelves, checkpoint, method):
    reply = chat(http, message(NAMES[method])).json()
    asked = QUESTION if checkpoint.tokenizer.chat_template else f"User: {QUESTION}\nAssistant:"
    wanted = from_library(shelves, checkpoint, method, asked)
    assert reply["choices"][0]["message"]["content"] == (wanted if checkpoint.tokenizer.chat_template else wanted.lstrip())
    (listed,) = (each for each in http.get("/v1/files").json()["data"] if each["filename"] == NAMES[method])
    assert reply["longreach"]["reused"] >= listed["longreach"]["tokens"] > len(TEXT)
    assert reply["longreach"]["profile"] == listed["longreach"]["method"] == method
    assert http.get(f"/v1/files/{listed['id']}").json() == listed
    again = chat(
        http, {"role": "user", "content": [{"type": "file", "file": {"file_id": listed["id"]}}, {"type": "text", "text": QUESTION}]}
    )
    assert again.json()["choices"] == reply["choices"], "by its id"


def test_the_next_turn_goes_on_from_the_first(http):
    first = chat(http, message("story")).json()
    said = first["choices"][0]["message"]
    second = chat(
        http, message("story"), {"role": "assistant", "content": said["content"]}, {"role": "user", "content": "And then?"}
    ).json()
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]
    assert second["longreach"]["reused"] > first["longreach"]["reused"]


def test_what_is_added_while_it_runs_is_there_and_what_is_removed_is_not(http, shelves, checkpoint):
    shelves.add(*checkpoint, f"{TEXT} And more.", name="new")
    assert chat(http, message("new")).status_code == 200
    shelves.remove("new")
    gone = chat(http, message("new"))
    assert gone.status_code == 404
    assert "the library has no document new" in gone.json()["error"]["message"]


def refused(reply, status, says):
    error = reply.json()["error"]
    assert (reply.status_code, says in error["message"]) == (status, True), error
    assert "\n" not in error["message"]


def test_a_document_opens_a_chat_or_has_no_place_in_it(http):
    hello = {"role": "user", "content": "hello"}
    place = "must be the first part of the user's first message"
    refused(chat(http, hello, {"role": "assistant", "content": "hm"}, message("story")), 400, place)
    refused(chat(http, message("story", QUESTION, {"type": "file", "file": {"file_id": "library:story"}})), 400, place)
    refused(chat(http, message("story", " ")), 400, "no text that asks about it")
    for field, more in (("overflow", {"overflow": "whole_turns"}), ("read", {"read": "rag"})):
        refused(
            chat(http, message("story"), longreach=more), 400, f"longreach.{field} has no effect on a chat that goes on from a document"
        )


def test_only_what_this_server_read(http, shelves, checkpoint):
    refused(
        chat(http, message("story of elsewhere")), 400, "was read under linear:factor=3, and this server's windows are under no method, "
    )
    refused(http.get("/v1/files/library:story of elsewhere"), 400, "was read under linear:factor=3")
    assert "story of elsewhere" not in [each["filename"] for each in http.get("/v1/files").json()["data"]]
    other = tiny(eos_token_id=None, max_position_embeddings=512)
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight.add_(1e-2)
    with server(Checkpoint(other, checkpoint.tokenizer), library=shelves.folder) as (url, _, _), httpx2.Client(base_url=url) as client:
        refused(chat(client, message("story")), 400, "story was read by another model")
        assert client.get("/v1/files").json()["data"] == []


def test_a_damaged_document_is_refused_and_nobody_is_told_where_it_lies(http, shelves, checkpoint):
    flipped_bit(shelves.add(*checkpoint, f"{TEXT} Or not.", name="damaged").volume)
    reply = chat(http, message("damaged"))
    refused(reply, 400, "damaged cannot be used: the library/")
    assert str(shelves.folder) not in reply.text
    shelves.remove("damaged")


def test_a_document_is_not_deleted_by_clients(http):
    refused(http.delete("/v1/files/library:story"), 403, "longreach library remove")
    assert chat(http, message("story")).status_code == 200


def test_it_has_to_fit_into_the_window_that_it_was_read_in(http):
    refused(chat(http, message("story", "a" * 500)), 400, "maximum context length is 512 tokens")
    assert chat(http, message("long story", "a" * 500)).status_code == 200


def test_a_server_without_a_library_says_so(running):
    with httpx2.Client(base_url=running[0]) as client:
        refused(chat(client, message("story")), 404, "this server has no library")


def test_a_system_prompt_is_one_that_the_document_was_not_read_behind(http, checkpoint):
    reply = chat(http, {"role": "system", "content": "Be brief."}, message("story"))
    if checkpoint.tokenizer.chat_template:
        refused(reply, 400, "was read without a system prompt")
    else:
        assert reply.status_code == 200, "without a template it stands behind the document"

"""The official client against a server on a port."""

import io
import json

import openai
import pytest
import torch

from longreach.decoding.generation import tokens
from longreach.decoding.sampling import Sampling
from longreach.serving.workflow import read_document
from tests.serving.served import server

HELLO = [{"role": "user", "content": "hello"}]


def prompt(loaded, messages=HELLO):
    text = loaded.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return loaded.tokenizer(text, add_special_tokens=False)["input_ids"]


def written(loaded, ids, most, **more):
    return loaded.tokenizer.decode(
        list(tokens(loaded.model, torch.tensor([ids]), max_new_tokens=most, **more)), skip_special_tokens=True
    )  # fmt: skip


def chat(client, messages=HELLO, **more):
    return client.chat.completions.create(model="tiny", messages=messages, **{"temperature": 0, "max_tokens": 12, **more})


def refused(client, **more):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **more)
    return caught.value


def test_models(client, running):
    (model,) = client.models.list().data
    assert model.id == "tiny"
    assert client.models.retrieve("tiny") == model
    assert model.longreach == {
        "window": 1024,
        "trained_window": 512,
        "profiles": [{"method": "", "window": 512}, {"method": "linear:factor=2", "window": 1024}],
        "method": "linear:factor=2",
        "template": "chat",
        "card": None,
        "read": [],
        "overflow": ["refuse", "summarise", "whole_turns"],
    }
    with pytest.raises(openai.NotFoundError, match="The model `other` does not exist"):
        client.models.retrieve("other")


def test_a_chat_is_what_the_model_writes(client, loaded):
    reply = chat(client)
    (choice,) = reply.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == written(loaded, prompt(loaded), 12)
    assert choice.finish_reason == "length"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (len(prompt(loaded)), 12)
    assert reply.longreach["profile"] == ""
    assert reply.longreach["window"] == 512
    assert reply.longreach["receipt"]["left_out"] == []


def test_a_stream_has_the_same_text_in_pieces(client, loaded):
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == written(loaded, prompt(loaded), 12)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 12
    assert chunks[-1].longreach["window"] == 512
    assert len({chunk.id for chunk in chunks}) == 1


def test_without_usage_every_chunk_of_a_stream_has_a_choice(client):
    chunks = list(chat(client, stream=True))
    assert all(chunk.choices for chunk in chunks)
    assert chunks[-1].longreach["profile"] == ""


def test_pieces_are_whole_characters(client, loaded):
    """Every byte is a token here, and what the model writes is mostly no UTF-8."""
    text = chat(client, max_tokens=60).choices[0].message.content
    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(client, max_tokens=60, stream=True)]
    assert "".join(pieces) == text
    assert any(len(piece) != 1 for piece in pieces)


def test_what_was_read_is_not_read_again(client, loaded):
    first = [{"role": "user", "content": "a question that is long enough to be worth keeping"}]
    reply = chat(client, first)
    again = chat(client, first)
    said = [*first, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "and then?"}]
    more = chat(client, said)
    assert reply.choices[0].message.content == again.choices[0].message.content == written(loaded, prompt(loaded, first), 12)
    assert again.longreach["reused"] == len(prompt(loaded, first)) - 1
    assert again.usage.prompt_tokens_details.cached_tokens == again.longreach["reused"]
    assert more.longreach["reused"] >= len(prompt(loaded, first))
    assert more.choices[0].message.content == written(loaded, prompt(loaded, said), 12)


def test_long_requests_run_under_the_method(client, running, loaded):
    service = running[1]
    said = [{"role": "user", "content": "word " * 110}]
    reply = chat(client, said)
    assert reply.longreach["profile"] == "linear:factor=2"
    twin = service.profiles.widest.model
    ids = torch.tensor([prompt(loaded, said)])
    assert reply.choices[0].message.content == loaded.tokenizer.decode(
        list(tokens(twin, ids, max_new_tokens=12)), skip_special_tokens=True
    )  # fmt: skip


def test_choices_and_seeds(client, loaded):
    one = chat(client, n=3, temperature=1, seed=5)
    two = chat(client, n=3, temperature=1, seed=5)
    texts = [choice.message.content for choice in one.choices]
    assert texts == [choice.message.content for choice in two.choices]
    assert texts[0] == written(loaded, prompt(loaded), 12, sampling=Sampling(temperature=1.0, seed=5))
    assert len(set(texts)) == 3
    assert [choice.index for choice in one.choices] == [0, 1, 2]
    assert one.usage.completion_tokens == 36
    chunks = list(chat(client, n=3, temperature=1, seed=5, stream=True))
    for number, text in enumerate(texts):
        pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.index == number]
        assert "".join(pieces) == text


def test_stops_end_before_themselves_across_tokens(client, loaded):
    whole = written(loaded, prompt(loaded), 60)
    stop = whole[6:10]
    reply = chat(client, max_tokens=60, stop=[stop])
    assert reply.choices[0].message.content == whole[: whole.index(stop)]
    assert reply.choices[0].finish_reason == "stop"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(client, max_tokens=60, stop=stop, stream=True)]
    assert "".join(pieces) == whole[: whole.index(stop)]


def test_log_probabilities(client, loaded):
    reply = chat(client, logprobs=True, top_logprobs=3)
    content = reply.choices[0].logprobs.content
    assert len(content) == 12
    with torch.no_grad():
        scores = loaded.model(torch.tensor([prompt(loaded)])).logits[0, -1].log_softmax(-1)
    best = scores.topk(3)
    assert [each.logprob for each in content[0].top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert content[0].logprob == pytest.approx(float(best.values[0]), abs=1e-4)
    streamed = [each for chunk in chat(client, logprobs=True, stream=True) for each in getattr(chunk.choices[0].logprobs, "content", ())]
    assert [each.token for each in streamed] == [each.token for each in content]


def test_completions(client, loaded):
    ids = loaded.tokenizer("once upon a time")["input_ids"]
    for given in ("once upon a time", ids, [ids]):
        reply = client.completions.create(model="tiny", prompt=given, temperature=0, max_tokens=8, logprobs=2)
        assert reply.choices[0].text == written(loaded, ids, 8)
        assert reply.choices[0].logprobs.text_offset[0] == 0
        assert len(reply.choices[0].logprobs.tokens) == 8
    chunks = list(client.completions.create(model="tiny", prompt=ids, temperature=0, max_tokens=8, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == written(loaded, ids, 8)
    assert client.completions.create(model="tiny", prompt="a").usage.completion_tokens == 16


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def test_tools_go_through_the_template(client, loaded):
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
    ]
    reply = chat(client, messages, tools=[TOOL])
    given = [
        *HELLO,
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]},
        messages[2],
    ]
    text = loaded.tokenizer.apply_chat_template(given, tools=[TOOL], tokenize=False, add_generation_prompt=True)
    assert "add" in text
    assert reply.usage.prompt_tokens == len(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])
    assert chat(client, tools=[TOOL], tool_choice="none").usage.prompt_tokens == len(prompt(loaded))


def test_calls_in_an_answer_are_found(client, running, monkeypatch):
    answer = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    profile = running[1].profiles.all[0]
    monkeypatch.setattr("longreach.serving.texts.chooser", lambda *_: scripted(running[1].tokenizer, answer, profile))
    monkeypatch.setattr(profile, "ends", {2})
    reply = chat(client, tools=[TOOL], max_tokens=200)
    (call,) = reply.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"a": 1})
    assert reply.choices[0].finish_reason == "tool_calls"
    assert reply.choices[0].message.content is None
    chunks = list(chat(client, tools=[TOOL], max_tokens=200, stream=True))
    (streamed,) = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert (streamed.function.name, streamed.function.arguments) == (call.function.name, call.function.arguments)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert chat(client, max_tokens=200).choices[0].message.content == answer  # without tools a text is a text


def scripted(tokenizer, text, profile):
    """Chooses the tokens of a text, and the end after them."""
    left = [*tokenizer(text, add_special_tokens=False)["input_ids"], 2]
    return lambda logits: torch.tensor([[left.pop(0)]])


def test_files(client, running, loaded):
    file = client.files.create(file=("notes.txt", io.BytesIO("the code is 7é".encode())), purpose="user_data")
    assert (file.filename, file.bytes, file.purpose) == ("notes.txt", 15, "user_data")
    assert file.longreach == {"tokens": 15}
    assert [each.id for each in client.files.list().data] == [file.id]
    part = {"type": "file", "file": {"file_id": file.id}}
    reply = chat(client, [{"role": "user", "content": [part, {"type": "text", "text": "which code?"}]}])
    shown = '<document name="notes.txt">\nthe code is 7é\n</document>\nwhich code?'
    assert reply.usage.prompt_tokens == len(prompt(loaded, [{"role": "user", "content": shown}]))
    inline = {"type": "file", "file": {"file_data": "data:text/plain;base64,dGhlIGNvZGUgaXMgNw==", "filename": "notes.txt"}}
    assert chat(client, [{"role": "user", "content": [inline]}]).usage.prompt_tokens < reply.usage.prompt_tokens
    assert client.files.retrieve(file.id).filename == "notes.txt"
    assert client.files.delete(file.id).deleted
    assert client.files.list().data == []
    with pytest.raises(openai.NotFoundError, match="No such File object"):
        client.files.retrieve(file.id)
    with pytest.raises(openai.BadRequestError, match="not UTF-8 text"):
        client.files.create(file=("a.bin", io.BytesIO(b"\xff\xfe\x00")), purpose="user_data")
    with pytest.raises(openai.BadRequestError, match="purpose must be one of"):
        client.files.create(file=("a.txt", io.BytesIO(b"a")), purpose="fine-tune")


def test_a_chat_that_is_too_long_is_refused_or_shortened(client, loaded):
    turns = [{"role": "user" if number % 2 == 0 else "assistant", "content": f"turn {number} " + "x" * 150} for number in range(9)]
    messages = [{"role": "system", "content": "be brief"}, *turns]
    error = refused(client, messages=messages)
    assert error.code == "context_length_exceeded"
    assert error.param == "messages"
    assert f"maximum context length is 1024 tokens. However, you requested {len(prompt(loaded, messages)) + 12} tokens" in error.message
    assert "longreach.overflow: whole_turns" in error.message
    reply = chat(client, messages, extra_body={"longreach": {"overflow": "whole_turns"}})
    receipt = reply.longreach["receipt"]
    assert receipt["policy"] == "whole_turns"
    left = [message["turn"] for message in receipt["left_out"]]
    kept = [messages[0], *turns[2 * max(left) :]]
    assert reply.usage.prompt_tokens == len(prompt(loaded, kept))
    assert reply.choices[0].message.content
    assert receipt["kept"] == reply.usage.total_tokens
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        chat(client, [{"role": "user", "content": "x" * 1100}], extra_body={"longreach": {"overflow": "whole_turns"}})


def test_a_summary_is_written_by_the_model_in_the_queue(client):
    turns = [{"role": "user" if number % 2 == 0 else "assistant", "content": f"turn {number} " + "x" * 120} for number in range(11)]
    reply = chat(client, turns, extra_body={"longreach": {"overflow": "summarise:max_tokens=8"}})
    receipt = reply.longreach["receipt"]
    assert receipt["summary"] or receipt["note"]
    assert receipt["left_out"]


def test_a_stream_tells_how_far_reading_is(client, running):
    said = [{"role": "user", "content": "progress " * 40}]
    chunks = list(chat(client, said, stream=True, extra_body={"longreach": {"progress": True}}))
    told = [chunk.longreach["progress"] for chunk in chunks if not chunk.choices]
    assert [each["done"] for each in told if each["stage"] == "reading"] == [64, 128, 192, 256, 320]
    assert {each["stage"] for each in told} == {"reading", "waiting"}
    assert len({each["total"] for each in told}) == 1


def test_an_answer_goes_on_from_its_beginning(client, loaded):
    begun = [*HELLO, {"role": "assistant", "content": "Well, "}]
    reply = chat(client, begun, extra_body={"add_generation_prompt": False, "continue_final_message": True})
    text = loaded.tokenizer.apply_chat_template(HELLO, tokenize=False, add_generation_prompt=True) + "Well, "
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert reply.choices[0].message.content == written(loaded, ids, 12)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frequency_penalty", 0.5),
        ("logit_bias", {"5": 1}),
        ("response_format", {"type": "json_object"}),
        ("tool_choice", "required"),
        ("temperature", 3),
        ("temperature", 1e-300),
        ("top_p", 0),
        ("n", 0),
        ("stop", [""]),
        ("max_tokens", -1),
        ("seed", -1),
        ("top_logprobs", 3),
        ("messages", []),
    ],
)
def test_what_is_not_supported_is_refused_by_its_name(client, field, value):
    assert refused(client, **{field: value}).param == field


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"mirostat": 2}, "mirostat"),
        ({"longreach": {"overflow": "sinks"}}, "longreach.overflow"),
        ({"longreach": {"overflow": "forget"}}, "longreach.overflow"),
        ({"longreach": {"depth": 1}}, "longreach.depth"),
        ({"longreach": {"thinking_budget": 5}}, "longreach.thinking_budget"),
        ({"longreach": {"progress": True}}, "longreach.progress"),
        ({"continue_final_message": True}, "add_generation_prompt"),
    ],
)
def test_our_own_fields_are_refused_by_their_names(client, body, param):
    assert refused(client, extra_body=body).param == param


def test_messages_that_make_up_no_conversation_are_refused(client):
    tool = {"role": "tool", "tool_call_id": "x", "content": "1"}
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}
    for messages, param in (
        ([tool], "messages"),
        ([{"role": "robot", "content": "a"}], "messages[0].role"),
        ([image], "messages[0].content[0].type"),
    ):
        assert refused(client, messages=messages).param == param


def test_embeddings_do_not_exist(client):
    with pytest.raises(openai.InternalServerError) as caught:
        client.embeddings.create(model="tiny", input="a")
    assert caught.value.status_code == 501


def test_a_document_beyond_the_window_is_read_by_a_workflow(loaded):
    text = "The harbour lies in the north. " * 400
    with server(loaded, read_document=read_document) as (url, _, _), openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        (model,) = client.models.list().data
        assert {"rag", "chain", "map_reduce"} <= set(model.longreach["read"])
        assert "whole_turns" in model.longreach["overflow"]
        assert "sinks" not in model.longreach["overflow"]
        file = client.files.create(file=("harbour.txt", text.encode()), purpose="user_data")
        content = [{"type": "file", "file": {"file_id": file.id}}, {"type": "text", "text": "Where does the harbour lie?"}]
        messages = [{"role": "user", "content": content}]
        with pytest.raises(openai.BadRequestError, match="longreach.read names a workflow"):
            client.chat.completions.create(model="tiny", messages=messages, max_tokens=8)
        reply = client.chat.completions.create(model="tiny", messages=messages, extra_body={"longreach": {"read": "rag:passages=1"}})
        ledger = reply.longreach["ledger"]
        assert ledger["workflow"] == "rag:passages=1"
        assert ledger["documents"] == [{"name": "harbour.txt", "characters": len(text)}]
        assert ledger["exact"]
        assert 0 < ledger["coverage"] < 1
        assert reply.usage.completion_tokens == ledger["cost"]["written"]
        with pytest.raises(openai.BadRequestError, match="unknown workflow 'rga'; did you mean rag"):
            client.chat.completions.create(model="tiny", messages=messages, extra_body={"longreach": {"read": "rga"}})

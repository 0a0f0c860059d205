"""What holds for every overflow policy, found by its file; then each by itself."""

import re
from dataclasses import replace

import pytest
import torch

from longreach.conversation.conversation import Conversation
from longreach.conversation.messages import split
from longreach.conversation.overflow.base import OverflowPolicy, Room, overflow_of
from longreach.conversation.overflow.summarise import Summarise
from longreach.conversation.prompt import summary_request
from longreach.core import registry
from longreach.core.errors import InputError, SpecError
from longreach.core.kinds import all_kinds, load
from longreach.core.sight import History
from longreach.core.spec import make
from longreach.decoding.generation import tokens
from longreach.decoding.reading import new_cache
from longreach.engine.apply import applied
from tests.conversation.talks import TEMPLATE, TOOLS, talker, tokens_of

NAMES = registry.names("overflow")
EXAMPLES = [example for name in NAMES for example in registry.module(name, "overflow").EXAMPLES]
WINDOW, RESERVE = 200, 40
SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = len("<assistant: ")  # tokens of what asks for an answer; the first one is <bos>


@pytest.fixture(scope="module")
def loaded():
    return talker(max_position_embeddings=512)


def turns(count):
    """So many turns of a user and an assistant, with a tool in the second."""
    said = [[{"role": "user", "content": f"question {turn}"}, {"role": "assistant", "content": f"answer {turn}"}] for turn in range(count)]
    said[1][1:1] = TOOLS
    return [message for turn in said for message in turn]


def asked(loaded, policy, *, history=5, window=WINDOW):
    """A reply after a long history, and the prompt that it was written to."""
    with Conversation(*loaded, overflow=policy, window=window, reserve=RESERVE, messages=[SYSTEM, *turns(history)]) as talk:
        prompts = []
        count = talk._prompts.ids
        talk._prompts.ids = lambda messages, **options: prompts.append(messages) or count(messages, **options)
        answer = talk.stream("the newest", max_new_tokens=4)
        prompt = prompts[-1]
        for _ in answer:
            pass
        return talk, prompt, answer.reply


# --- all of them


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_a_policy(name):
    module = registry.module(name, "overflow")
    contract = load(all_kinds()["overflow"].contract)
    assert contract is OverflowPolicy
    assert issubclass(module.OVERFLOW, contract)
    assert module.EXAMPLES
    assert all(type(example) is module.OVERFLOW and overflow_of(example.spec) == example for example in module.EXAMPLES)
    assert module.__doc__


@pytest.mark.parametrize(("name", "bad"), [(name, bad) for name in NAMES for bad in registry.module(name, "overflow").BAD])
def test_a_bad_setting_is_refused_by_name_and_value(name, bad):
    ((setting, value),) = bad.items()
    with pytest.raises(SpecError, match=rf"{name}: {setting}={value:g}"):
        make(registry.module(name, "overflow").OVERFLOW, bad)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(SpecError, match=r"unknown overflow 'whole_turn'; did you mean whole_turns"):
        overflow_of("whole_turn")


@pytest.mark.parametrize("policy", EXAMPLES, ids=str)
def test_what_fits_is_left_alone(loaded, policy):
    with Conversation(*loaded, overflow=policy, window=256, reserve=40) as talk:
        reply = talk.say("hi", max_new_tokens=4)
    assert not reply.receipt
    assert reply.receipt.left_out == ()
    assert reply.prompt == tokens_of({"role": "user", "content": "hi"}) + ASKED
    assert applied(loaded.model) == "", "the method was left"


@pytest.mark.parametrize("policy", [each for each in EXAMPLES if each.name() != "refuse"], ids=str)
def test_a_long_conversation_fits(loaded, policy):
    history = [SYSTEM, *turns(5), {"role": "user", "content": "the newest"}]
    talk, prompt, reply = asked(loaded, policy)
    assert [message for message in talk.messages if message["role"] != "assistant"] == [m for m in history if m["role"] != "assistant"]
    assert talk.messages[-1] == {"role": "assistant", "content": reply.text}
    assert reply.receipt
    assert prompt[0]["content"].startswith("Be brief.")
    assert prompt[-1] == history[-1]
    for place, message in enumerate(prompt):
        assert message["role"] != "tool" or prompt[place - 1].get("tool_calls"), "a result without its call"
    full = tokens_of(*history) + ASKED
    if policy.keeps_text:
        assert prompt == history
        assert reply.prompt == full
        assert reply.receipt.kept == full + reply.written
    else:
        assert reply.prompt <= WINDOW - RESERVE
        summary = len(prompt[0]["content"]) - len("Be brief.")
        assert full - reply.prompt == reply.receipt.tokens - summary
        kept = split(prompt)[1]
        gone = split(history)[1][: 6 - len(kept)]
        assert [(each.turn, each.role) for each in reply.receipt.left_out] == [
            (number, message["role"]) for number, turn in enumerate(gone, 1) for message in turn
        ]
        assert [each.tokens for each in reply.receipt.left_out] == [tokens_of(message) for turn in gone for message in turn]
    assert reply.receipt.system_tokens == tokens_of(SYSTEM)


@pytest.mark.parametrize("policy", EXAMPLES, ids=str)
def test_a_window_without_end_leaves_nothing_out(policy, loaded):
    room = Room(window=None, reserve=RESERVE)
    if policy.keeps_text:
        with pytest.raises(InputError, match=f"overflow={policy.name()} has to know a window"):
            policy.methods(room, 4)
        return
    assert policy.methods(room, 4) == ()
    with Conversation(*loaded, overflow=policy, window=WINDOW, reserve=RESERVE, messages=turns(5)) as talk:
        given = talk._talk(talk.messages)
        assert policy.fit(replace(given, room=room)).messages == talk.messages


# --- each


@pytest.mark.parametrize("policy", ["refuse", "whole_turns", "summarise"])
def test_a_message_longer_than_the_window_is_refused_and_leaves_all_as_it_was(loaded, policy):
    with Conversation(*loaded, overflow=policy, window=WINDOW, reserve=RESERVE, system="Be brief.") as talk:
        first = talk.say("hi", max_new_tokens=4)
        before = talk.messages
        with pytest.raises(InputError, match=r"tokens, \d+ too many for the 160 that a window of 200 leaves beside 40 for the answer"):
            talk.say("x" * 170)
        assert talk.messages == before
        again = talk.say("go on", max_new_tokens=4)
    assert again.reused > first.prompt - 3, "the cache was left alone, too"


def test_refusing_says_how_many_tokens_are_too_many_and_what_helps(loaded):
    full = tokens_of(SYSTEM, *turns(5), {"role": "user", "content": "the newest"}) + ASKED
    with pytest.raises(InputError) as error:
        asked(loaded, "refuse")
    assert f"the conversation has {full} tokens, {full - 160} too many for the 160" in str(error.value)
    for remedy in ("--window", "--method", "--overflow whole_turns, sinks, infllm or summarise"):
        assert remedy in str(error.value)


def test_whole_turns_leaves_out_no_more_than_it_has_to(loaded):
    _, _, reply = asked(loaded, "whole_turns")
    gone = [each for each in reply.receipt.left_out if each.turn == reply.receipt.left_out[-1].turn]
    assert reply.prompt + sum(each.tokens for each in gone) > WINDOW - RESERVE
    first, last = 1, reply.receipt.left_out[-1].turn
    assert str(reply.receipt) == (f"left out: turns {first}-{last} ({reply.receipt.tokens} tokens); {tokens_of(SYSTEM)} system tokens kept")


@pytest.mark.parametrize("spare", [0, -1])
def test_the_room_is_used_to_the_last_token(loaded, spare):
    history = [SYSTEM, *turns(2)]
    exact = tokens_of(*history, {"role": "user", "content": "the newest"}) + ASKED
    with Conversation(*loaded, window=exact + 10 + spare, reserve=10, messages=history) as talk:
        reply = talk.say("the newest")
    assert bool(reply.receipt.left_out) is (spare < 0)
    assert reply.prompt + reply.written == exact + 10 + spare if spare == 0 else reply.prompt < exact
    assert reply.stopped == "window"


def test_sinks_say_what_is_no_longer_seen(loaded):
    talk, _, reply = asked(loaded, "sinks")
    total = reply.prompt + reply.written
    assert reply.receipt.seen == WINDOW
    assert reply.receipt.unseen == total - WINDOW
    assert re.match(rf"no longer seen: {total - WINDOW} of {total} tokens", str(reply.receipt))
    assert talk._under == f"sinks:num_sinks={tokens_of(SYSTEM)},window_size={WINDOW - tokens_of(SYSTEM)}", "the system prompt stays"


def test_what_an_answer_pushes_out_of_sight_counts(loaded):
    with Conversation(*loaded, overflow="sinks", window=60, reserve=10) as talk:
        reply = talk.say("hi", max_new_tokens=50)
    assert reply.prompt < 60
    assert str(reply.receipt).startswith(f"no longer seen: {reply.prompt + 50 - 60} of {reply.prompt + 50} tokens")


def test_sinks_have_to_leave_room_for_a_conversation(loaded):
    with pytest.raises(InputError, match=r"overflow=sinks keeps 161 first tokens in sight, which leave no room in a window of 200"):
        Conversation(*loaded, overflow="sinks:num_sinks=161", window=WINDOW, reserve=RESERVE)


def test_infllm_says_how_much_each_query_sees(loaded):
    _, _, reply = asked(loaded, "infllm")
    policy, room = overflow_of("infllm"), Room(window=WINDOW, reserve=RESERVE)
    (method,) = policy.methods(room, 0)
    heads = loaded.model.config.num_key_value_heads
    for query in (3, 110, 140, reply.prompt + reply.written - 1):
        size = query + 1
        zeros = torch.zeros(heads, size, 8)
        history = History(  # the definition of what is seen, which the receipt is held to
            layer=None, prompt=size, entropy=torch.zeros(size), attention=torch.zeros(2 * heads, query, size),
            q=torch.zeros(2 * heads, size, 8), k=zeros, v=zeros, scale=1.0, rotated=lambda x, positions: x,
        )  # fmt: skip
        seen = len(method.sight(query, history).tokens[0])
        assert policy.sight(room, size) == seen
    assert reply.receipt.seen == seen < reply.prompt
    total = reply.prompt + reply.written
    assert str(reply.receipt) == f"all {total} tokens are kept; each of them sees up to {seen}, those that it finds and the last"


# --- summaries


def test_a_summary_is_what_the_model_writes(loaded):
    talk, prompt, reply = asked(loaded, "summarise:max_tokens=8", history=14, window=500)
    model, tokenizer = loaded
    assert reply.receipt.summary
    assert prompt[0]["content"] == f"Be brief.\n\nSummary of the conversation so far: {reply.receipt.summary}"
    last = reply.receipt.left_out[-1].turn
    asked_for = summary_request(split(talk.messages)[1][:last], "")
    written = list(tokens(model, torch.tensor([talk._prompts.ids(asked_for)]), max_new_tokens=8, cache=new_cache(model)))
    assert tokenizer.decode(written, skip_special_tokens=True).strip() == reply.receipt.summary
    assert f"for which a summary of {reply.receipt.summary_tokens} tokens stands" in str(reply.receipt)


class Scripted:
    """What a model would write as summaries; keeps what it was asked."""

    def __init__(self, *written):
        self.written, self.asked = list(written), []

    def __call__(self, turns, before, most, progress):
        self.asked.append((len(turns), before))
        return self.written.pop(0)


def scripted(loaded, monkeypatch, *written, policy="summarise:max_tokens=8,keep=0.6"):
    script = Scripted(*written)
    monkeypatch.setattr(Conversation, "_summary", lambda self, *args: script(*args))
    return script, Conversation(*loaded, overflow=policy, window=WINDOW, reserve=RESERVE, messages=[SYSTEM, *turns(5)])


def test_a_summary_stays_until_it_does_not_fit_any_more(loaded, monkeypatch):
    script, talk = scripted(loaded, monkeypatch, ("first", 5), ("second", 6))
    first = talk.say("one", max_new_tokens=4)
    again = talk.say("two", max_new_tokens=4)
    assert (first.receipt.summary, again.receipt.summary) == ("first", "first")
    assert len(script.asked) == 1
    before = first.receipt.left_out[-1].turn
    third = talk.say("three " * 6, max_new_tokens=4)
    assert third.receipt.summary == "second"
    assert script.asked == [(before, ""), (third.receipt.left_out[-1].turn - before, "first")], "it goes on from the first"


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ([("", 0)], "the model wrote an empty one"),
        ([("x" * 150, 150)], "one of 150 tokens does not fit"),
        ([None] * 9, "the turns are too long to be summarised in one window"),
    ],
)
def test_without_a_summary_whole_turns_are_left_out_and_that_is_said(loaded, monkeypatch, written, why):
    _, talk = scripted(loaded, monkeypatch, *written)
    reply = talk.say("the newest", max_new_tokens=4)
    _, _, plain = asked(loaded, "whole_turns")
    assert str(reply.receipt) == f"no summary ({why}): whole_turns; {plain.receipt}"
    assert reply.prompt == plain.prompt
    assert reply.receipt.summary is None


def test_a_template_without_a_system_prompt_has_no_place_for_a_summary():
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
    with Conversation(*talker(template=refusing), overflow=Summarise(), window=WINDOW, reserve=RESERVE, messages=turns(5)) as talk:
        reply = talk.say("the newest", max_new_tokens=4)
    assert "no summary (the chat template refuses these messages: no system role): whole_turns; left out" in str(reply.receipt)

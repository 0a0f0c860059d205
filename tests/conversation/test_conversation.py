import gc
from itertools import pairwise

import pytest
import torch
import transformers

from longreach.conversation.conversation import Conversation, Counted
from longreach.conversation.prompt import Prompts
from longreach.core.errors import InputError, LongreachError, SpecError, UnsupportedError
from longreach.decoding import generation
from longreach.decoding.generation import text, tokens
from longreach.decoding.sampling import Sampling
from longreach.engine.apply import applied, apply
from longreach.engine.window import position_limit
from longreach.testing.conformance.base import TOLERANCE, close
from longreach.testing.models import randomize, tiny_biased, tiny_learned
from tests.checkpoints.folders import byte_tokenizer
from tests.conversation.talks import CALL, TEMPLATE, TOOLS, talker, tokens_of

pytestmark = pytest.mark.filterwarnings("ignore:.* forgets what it has no room for")
ASKED = 12  # tokens of what asks for an answer
SAID = ["once upon a time", "there was é model", "that was tiny", "and forgot", "what it had read"]


@pytest.fixture(scope="module")
def loaded():
    return talker(max_position_embeddings=1024)


# --- what two prompts begin with is read once, and that changes nothing


@pytest.fixture
def chosen_from(monkeypatch):
    """The logits that tokens were chosen from."""
    seen = []
    monkeypatch.setattr(generation, "check_finite", lambda logits, *args, **more: seen.append(logits.clone()) or logits)
    return seen


def held_to_one_reading(talk, chosen_from, method, said):
    """Reply, after checking answer and logits against those of a model that reads the whole prompt at once."""
    prompts, ids_of = [], talk._prompts.ids
    talk._prompts.ids = lambda messages, **options: prompts.append(ids_of(messages, **options)) or prompts[-1]
    chosen_from.clear()
    answer = talk.stream(said, max_new_tokens=9)
    ids = torch.tensor([prompts[-1]])
    talk._prompts.ids = ids_of
    for _ in answer:
        pass
    ours = torch.cat(chosen_from)
    chosen_from.clear()
    with apply(talk.model, None if applied(talk.model) else method, warn=False):
        at_once = list(tokens(talk.model, ids, max_new_tokens=9, chunk_size=4096))
    close(ours, torch.cat(chosen_from), said, tolerance=TOLERANCE)
    assert "".join(text(at_once, talk._prompts.tokenizer)) == answer.reply.text
    return answer.reply


def hybrid():
    """A model with a convolution in its first layer."""
    config = transformers.Lfm2Config(
        vocab_size=264, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=1024, layer_types=["conv", "full_attention"], eos_token_id=None,
    )  # fmt: skip
    return talker()._replace(model=randomize(transformers.Lfm2ForCausalLM(config).eval()))


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("llama", None),
        ("gemma3", None),  # with sliding windows
        ("llama_longrope", None),  # other frequencies for long texts
        ("llama", "yarn:factor=4"),
        ("llama", "self_extend:neighbours=64,group=4"),
        ("llama", "sinks:window_size=48"),
        ("llama", "h2o:budget=40"),
        ("llama", "infllm:block_size=8,num_blocks=2,local_window=24"),
        ("lfm2", None),  # with states in place of attention
    ],
)
def test_after_five_turns_logits_are_those_of_one_reading(family, method, chosen_from):
    loaded = hybrid() if family == "lfm2" else talker(family, max_position_embeddings=1024)
    with Conversation(*loaded, method=method, window=700, reserve=16) as talk:
        replies = [held_to_one_reading(talk, chosen_from, method, said) for said in SAID]
    assert [reply.prompt for reply in replies] == sorted(reply.prompt for reply in replies)
    assert not any(reply.receipt for reply in replies)
    for before, reply in pairwise(replies):
        assert reply.read + reply.reused == reply.prompt
        if family == "lfm2":  # a state goes forward only
            assert reply.anew or reply.reused >= before.prompt
            continue
        assert reply.reused >= before.prompt, "what was read once is not read again"
        assert not reply.anew


def test_where_a_turn_is_left_out_only_the_system_prompt_is_reused(loaded, chosen_from):
    system = "Be brief."
    with Conversation(*loaded, window=220, reserve=20, system=system) as talk:
        replies = [held_to_one_reading(talk, chosen_from, None, said) for said in SAID]
    dropped = [reply for reply in replies if reply.receipt]
    head = tokens_of({"role": "system", "content": system}) + len("<user: ")
    assert len(dropped) >= 2
    assert all(head <= reply.reused < head + 4 for reply in dropped)


def test_what_cuts_each_prompt_where_it_ends_reads_all_of_each(loaded, chosen_from):
    method = "snapkv:budget=24,window_size=8"
    with Conversation(*loaded, method=method, window=700) as talk:
        first, second = (held_to_one_reading(talk, chosen_from, method, said) for said in SAID[:2])
    assert (first.anew, second.anew) == ("", f"{talk._under} cuts every prompt where it ends")
    assert second.reused == 0


def test_a_cache_that_cannot_go_back_is_read_anew_and_that_is_said(loaded, chosen_from):
    forgetful = TEMPLATE.replace("message['content'] }}", "message['content'][:5 + 99 * (loop.length - loop.index < 3)] }}")
    short = talker(template=forgetful, max_position_embeddings=1024)
    with Conversation(*short, method="sinks:window_size=24", window=700) as talk:
        replies = [held_to_one_reading(talk, chosen_from, "sinks:window_size=24", said) for said in SAID]
    assert replies[-1].anew == "the cache forgets, and cannot go back to where the prompts part"
    assert replies[-1].reused == 0


# --- replies


def test_a_reply_says_what_it_cost(loaded):
    with Conversation(*loaded, window=400) as talk:
        reply = talk.say("hi", max_new_tokens=5)
        assert (reply.prompt, reply.read, reply.reused, reply.written) == (22, 22, 0, 5)
        assert reply.stopped == "limit"
        assert talk.messages == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": reply.text}]


def test_pieces_make_up_the_reply(loaded):
    with Conversation(*loaded, window=400) as one, Conversation(*loaded, window=400) as other:
        answer = one.stream("hi", max_new_tokens=12)
        with pytest.raises(LongreachError, match=r"the answer has not ended; read its pieces, or close it"):
            _ = answer.reply
        assert "".join(answer) == answer.reply.text == other.say("hi", max_new_tokens=12).text


def test_an_end_token_ends_an_answer(loaded, monkeypatch):
    with Conversation(*loaded) as talk:
        model = loaded.model
        ids = torch.tensor([talk._prompts.ids([{"role": "user", "content": "hi"}])])
        usual = list(tokens(model, ids, max_new_tokens=8))
        monkeypatch.setattr(model.generation_config, "eos_token_id", usual[4])
        reply = talk.say("hi", max_new_tokens=8)
    assert (reply.stopped, reply.written) == ("end", usual.index(usual[4]))


def test_an_answer_ends_where_the_window_is_full(loaded):
    with Conversation(*loaded, window=60, reserve=10) as talk:
        reply = talk.say("hi")
        assert (reply.stopped, reply.prompt + reply.written) == ("window", 60)
    with Conversation(*loaded, window=60, reserve=10) as talk:
        assert talk.say("hi", max_new_tokens=99).stopped == "window"
    with Conversation(*loaded, window=60, reserve=50, overflow="sinks") as talk:
        reply = talk.say("hi")
        assert (reply.stopped, reply.written) == ("limit", 50)
        assert talk.say("hi", max_new_tokens=99).written == 99, "no end: the window slides"


def test_sampling(loaded):
    def drawn(seed):
        with Conversation(*loaded) as talk:
            return talk.say("hi", sampling=Sampling(temperature=2, seed=seed), max_new_tokens=12).text

    assert drawn(1) == drawn(1) != drawn(2)


def test_counts_are_by_turn(loaded):
    with Conversation(*loaded, window=150, reserve=40, system="Be brief.") as talk:
        for said in SAID[:3]:
            reply = talk.say(said, max_new_tokens=4)
        counts, messages = talk.counts(), talk.messages
    gone = [Counted(turn=each.turn, role=each.role, tokens=each.tokens, seen=False) for each in reply.receipt.left_out]
    assert gone
    assert counts[0] == Counted(turn=0, role="system", tokens=tokens_of(messages[0]), seen=True)
    assert counts[1:] == [
        Counted(turn=1 + (place - 1) // 2, role=message["role"], tokens=tokens_of(message), seen=place > len(gone))
        for place, message in enumerate(messages[1:], 1)
    ]


# --- what is refused, and what an end in the middle leaves


def test_closing_keeps_what_was_written(loaded):
    with Conversation(*loaded, window=400) as talk:
        answer = talk.stream("hi", max_new_tokens=50)
        some = next(answer) + next(answer)
        answer.close()
        assert talk.messages[-1] == {"role": "assistant", "content": some}
        assert (answer.reply.stopped, answer.reply.text) == ("cancelled", some)
        assert list(answer) == []
        again = talk.say("go on", max_new_tokens=4)
    assert again.reused >= 22, "the cache is as good as ever"


@pytest.mark.parametrize("begun", [False, True])
def test_an_answer_of_which_nothing_was_written_leaves_all_as_it_was(loaded, begun, monkeypatch):
    with Conversation(*loaded, window=400) as talk:
        talk.say("hi", max_new_tokens=4)
        before = talk.messages
        answer = talk.stream("go on", max_new_tokens=4)
        if begun:
            monkeypatch.setattr(loaded.model, "forward", interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(answer)
            monkeypatch.undo()
        answer.close()
        assert answer.empty
        with pytest.raises(LongreachError, match="nothing of the answer was written"):
            _ = answer.reply
        assert talk.messages == before
        reply = talk.say("go on", max_new_tokens=4)
        assert reply.anew == ("the answer before was interrupted within a step" if begun else "")


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize("method", [None, "sinks:window_size=24"])
def test_an_interrupt_within_a_step_keeps_what_was_written(loaded, method, monkeypatch, chosen_from):
    with Conversation(*loaded, method=method, window=400) as talk:
        answer = talk.stream("hi", max_new_tokens=50)
        some = next(answer)
        layer = loaded.model.model.layers[1]
        monkeypatch.setattr(layer, "forward", interrupted)  # layer 0 has written by then
        with pytest.raises(KeyboardInterrupt):
            next(answer)
        monkeypatch.undo()
        assert answer.reply.text == talk.messages[-1]["content"] == some
        monkeypatch.setattr(generation, "check_finite", lambda logits, *args, **more: chosen_from.append(logits.clone()) or logits)
        reply = held_to_one_reading(talk, chosen_from, method, "go on")
    assert reply.anew == "the answer before was interrupted within a step"


def test_one_answer_at_a_time(loaded):
    with Conversation(*loaded, window=400) as talk:
        answer = talk.stream("hi", max_new_tokens=4)
        next(answer)
        with pytest.raises(LongreachError, match=r"the answer before is still being written; read it to its end, or close it"):
            talk.say("and?")
        del answer
        assert len(talk.messages) == 2, "an answer that nobody holds is closed"
        talk.say("and?", max_new_tokens=2)


@pytest.mark.parametrize("said", ["", "  \n", []])
def test_an_empty_message_is_refused(loaded, said):
    with Conversation(*loaded) as talk:
        with pytest.raises(InputError, match=r"the message is empty|an answer needs a message"):
            talk.say(said)
        assert talk.messages == []


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"window": 60}, InputError, r"a window of 60 tokens leaves no room beside 256 for the answer"),
        ({"window": 60, "reserve": 40}, InputError, r"a message of one word have 21 tokens, and a window of 60 leaves 20 beside 40"),
        ({"window": 300, "system": "x" * 300}, InputError, r"the system prompt and a message of one word have 331 tokens"),
        ({"window": 300, "system": "x" * 300, "overflow": "sinks"}, InputError, r"overflow=sinks keeps 310 first tokens in sight"),
        ({"reserve": 0}, InputError, r"reserve=0 must be a whole number, at least 1"),
        ({"window": 2.5}, InputError, r"window=2.5 must be a whole number"),
        ({"system": " "}, InputError, r"the system prompt is empty"),
        ({"method": "yarn:factor=auto"}, InputError, r"has to know how long the conversation may get; give window \(--window\)"),
        ({"method": "yarm"}, SpecError, r"unknown method 'yarm'; did you mean yarn"),
        ({"overflow": "all_turns"}, SpecError, r"unknown overflow 'all_turns'"),
        ({"method": "sinks:window_size=64"}, None, r"sinks:window_size=64 forgets what it has no room for, and receipts do not count that"),
        ({"window": 2000}, None, r"a window of 2000 tokens goes beyond the 1024 that .* is made for"),
        ({"method": "linear:factor=2", "window": 2049}, None, r"2049 tokens goes beyond the 2048 that linear:factor=2 reaches"),
        ({"method": "sinks:window_size=64", "overflow": "sinks", "window": 300}, UnsupportedError, r"two .*cache policies|has two"),
    ],
)
def test_what_cannot_be_is_said_at_the_beginning(loaded, arguments, error, says):
    if error is None:
        with pytest.warns(UserWarning, match=says):
            Conversation(*loaded, **arguments).close()
    else:
        with pytest.raises(error, match=says):
            Conversation(*loaded, **arguments)
    assert applied(loaded.model) == ""


def test_the_window_is_what_the_model_or_the_method_reaches(loaded):
    for method, window in (
        (None, 1024),
        ("linear:factor=2", 2048),
        ("yarn:factor=2", 2048),
        ("yarn", 4096),
        ("sinks:window_size=64", None),
    ):
        given = 4096 if method == "yarn" else None
        with Conversation(*loaded, method=method, window=given) as talk:
            assert talk.room.window == window
    with Conversation(*loaded, method="yarn", window=4096):
        assert applied(loaded.model) == "yarn:factor=4"
    gpt2 = tiny_learned("gpt2", window=96, vocab_size=264)
    with pytest.raises(InputError, match=r"has positions for 96 tokens and no more"):
        Conversation(gpt2, byte_tokenizer(), window=97, reserve=20)
    with Conversation(gpt2, byte_tokenizer(), reserve=20) as talk:
        assert talk.room.window == 96
    with Conversation(gpt2, byte_tokenizer(), method="stretch_positions:factor=2", reserve=20) as talk:
        assert talk.room.window == position_limit(gpt2) > 96
        assert talk.say("x" * 100, max_new_tokens=2).written == 2


def test_an_encoder_decoder_does_not_converse():
    with pytest.raises(InputError, match=r"is an encoder-decoder, and a conversation needs a causal language model"):
        Conversation(tiny_biased("t5"), byte_tokenizer())


def test_the_model_is_under_the_method_until_the_end(loaded):
    talk = Conversation(*loaded, method="sinks:window_size=64")
    assert applied(loaded.model) == "sinks:window_size=64"
    with pytest.raises(UnsupportedError, match=r"sinks:window_size=64 is applied to it"):
        Conversation(*loaded, method="log_n")
    talk.close()
    assert applied(loaded.model) == ""
    with pytest.raises(LongreachError, match=r"begun under sinks:window_size=64, and the model is under no method by now"):
        talk.say("hi")
    talk = Conversation(*loaded, method="sinks:window_size=64")
    del talk
    gc.collect()
    assert applied(loaded.model) == ""


def test_numbers_that_are_none_leave_the_conversation_as_it_was():
    model, tokenizer = talker(max_position_embeddings=512)
    with Conversation(model, tokenizer) as talk, torch.no_grad():
        talk.say("hi", max_new_tokens=4)
        before, weight = talk.messages, model.model.layers[1].mlp.down_proj.weight
        kept = weight[0, 0].clone()
        weight[0, 0] = float("nan")
        with pytest.raises(LongreachError, match=r"layer 2 of 3 \(model\.layers\.1\) is the first whose output is not, at token 1;"):
            talk.say("go on")
        assert talk.messages == before
        weight[0, 0] = kept
        assert talk.say("go on", max_new_tokens=4).anew, "nothing of the broken pass is reused"


# --- tools


def test_calls_and_results_are_messages_like_others(loaded):
    with Conversation(*loaded, window=400) as talk:
        talk.add({"role": "user", "content": "what time is it?"})
        reply = talk.say(TOOLS, max_new_tokens=4)
        assert reply.prompt == tokens_of(*talk.messages[:3]) + ASKED
        assert [message["role"] for message in talk.messages] == ["user", "assistant", "tool", "assistant"]
        assert talk.say("noon", role="tool", max_new_tokens=2).written == 2
        before = talk.messages
        with pytest.raises(InputError, match=r"the assistant called tools, and 1 of their results are missing"):
            talk.say([{"role": "assistant", "tool_calls": [CALL, CALL]}, TOOLS[1], {"role": "user", "content": "so?"}])
        assert talk.messages == before
        talk.messages.clear()
        talk.messages[0]["content"] = "changed"
        assert talk.messages == before, "what is given out is a copy"


def test_a_template_that_leaves_tools_out_is_found_out():
    silent = TEMPLATE.replace("message['tool_calls'] or []", "[]")
    with Conversation(*talker(template=silent), reserve=16) as talk:
        talk.add({"role": "user", "content": "what time is it?"})
        with pytest.raises(InputError, match=r"the chat template leaves out the tool 'clock'"):
            talk.say(TOOLS)


# --- without a chat template


def test_a_plain_template_stands_in():
    model, tokenizer = talker(template=None, max_position_embeddings=512)
    with Conversation(model, tokenizer, system="Be brief.", window=400) as talk:
        assert talk.plain
        assert talk._prompts.text([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]) == (
            "Be brief.\n\nUser: hi\nAssistant:"
        )
        talk.say("hi", max_new_tokens=4)
    assert Prompts(tokenizer).stops == ("\nUser:", "\nAssistant:", "\nTool:")
    with pytest.raises(InputError, match=r"has no chat template, and so nothing that says how tools are offered"):
        Conversation(model, tokenizer, tools=[CALL])

import math

import pytest
import torch

from longreach.conversation.local import LocalModel
from longreach.core.errors import InputError
from longreach.endpoint.base import Request
from longreach.endpoint.errors import ContextLengthError
from longreach.engine.apply import apply
from longreach.testing.models import tiny_encoder_decoder, tiny_model
from tests.cli.conftest import VOCABULARY, tokenizer

CHAT = [{"role": "user", "content": "Where is the harbour?"}]


@pytest.fixture(scope="module")
def local():
    return LocalModel(tiny_model(vocab_size=VOCABULARY, max_position_embeddings=128), tokenizer())


def test_a_chat_is_answered_as_generate_does(local):
    said = local.chat(CHAT, most_tokens=12)
    ids = local._prompts.ids(CHAT)
    prompt = torch.tensor([ids])
    made = local.model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False)[0, len(ids) :]
    wanted = local.tokenizer.decode(made, skip_special_tokens=True).partition("\nUser:")[0].strip()
    assert said.text == wanted
    assert said.prompt_tokens == len(ids) == local.count_chat(CHAT)
    assert said.completion_tokens == len(made)
    assert said.finish_reason == ("length" if len(made) == 12 else "stop")


def test_a_prompt_is_completed_and_a_prefix_gone_on_from(local):
    assert local.complete("The harbour", most_tokens=4).prompt_tokens == len(local.tokenizer("The harbour")["input_ids"])
    prefixed = local.ask(Request(messages=CHAT, most_tokens=4, prefix="It is "))
    assert prefixed.prompt_tokens > local.count_chat(CHAT)


def test_logprobs_are_those_of_the_model(local):
    said = local.chat(CHAT, most_tokens=3, logprobs=5)
    with torch.no_grad():
        shares = local.model(torch.tensor([local._prompts.ids(CHAT)])).logits[0, -1].log_softmax(-1)
    first = said.logprobs[0]
    assert len(said.logprobs) == said.completion_tokens
    assert first.logprob == pytest.approx(float(shares.max()), abs=1e-5)
    assert list(first.top.values()) == pytest.approx(shares.topk(5).values.tolist(), abs=1e-5)
    assert next(iter(first.top)) == first.token
    assert local.chat(CHAT, most_tokens=3).logprobs is None
    assert local.chat(CHAT, most_tokens=1, logprobs=0).logprobs[0].top == {}


def test_sampling_with_a_seed_repeats_itself(local):
    one, two = (local.chat(CHAT, most_tokens=16, temperature=1.5, seed=3).text for _ in range(2))
    assert one == two


def test_stops_end_the_text(local):
    whole = local.complete("The harbour", most_tokens=16).text
    stop = whole.strip()[3:6]
    assert local.complete("The harbour", most_tokens=16, stop=stop).text == whole.strip().partition(stop)[0].rstrip()


def test_what_does_not_fit_is_refused_with_the_window(local):
    assert local.window == 128
    with pytest.raises(ContextLengthError, match="window of 128") as error:
        local.complete("word " * 200, most_tokens=4)
    assert error.value.limit == 128


def test_a_method_widens_the_window_and_is_named():
    model = tiny_model(vocab_size=VOCABULARY, max_position_embeddings=128)
    with apply(model, "yarn:factor=4"):
        local = LocalModel(model, tokenizer())
        assert local.window == 512
        assert local.name.endswith("under yarn:factor=4")
        assert math.isfinite(local.complete("word " * 40, most_tokens=2, logprobs=1).logprobs[0].logprob)


def test_an_encoder_decoder_is_refused():
    with pytest.raises(InputError, match="encoder-decoder"):
        LocalModel(tiny_encoder_decoder(), tokenizer())

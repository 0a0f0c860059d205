"""A model answers from one reading what it answers to whole prompts, and likelihoods are those of the definition."""

import pytest
import torch

from longreach.core.errors import InputError, LongreachError
from longreach.engine.apply import apply
from longreach.evaluation.asking.answerer import ModelAnswerer, likeliest
from longreach.evaluation.asking.form import Form
from longreach.evaluation.asking.passage import Ask, Passage, Response, Turn
from longreach.testing.models import tiny_encoder_decoder, tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

TEMPLATE = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
ASKS = (
    Ask(text="Which number is it?", opening="It is", right="417", choices=("417", "83", "9")),
    Ask(text="What comes first?", right="a word", choices=("a word", "a wordy thing", "b"), most_tokens=5),
    Ask(text="And then?", opening="Then", right="more", until=("e", "\n")),
)
PASSAGE = Passage(text=real_text()[:700], asks=ASKS)


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


def chatty(style="digits"):
    made = tokenizer(style).__class__(tokenizer_object=tokenizer(style).backend_tokenizer, bos_token="<s>")
    made.chat_template = TEMPLATE
    return made


def alone(model, tokens, ask, **options):
    return ModelAnswerer(model, tokens, **options).answers(Passage(text=PASSAGE.text, asks=(ask,), turns=PASSAGE.turns))[0]


@pytest.mark.parametrize(
    "spec", ["", "self_extend:neighbours=16,group=8", "sinks:window_size=64", "dynamic_ntk:step=8", "snapkv:budget=64"]
)
@pytest.mark.parametrize("chat", [False, True])
def test_one_reading_gives_what_whole_prompts_give(model, spec, chat):
    tokens = chatty()
    with apply(model, spec, warn=False):
        together = ModelAnswerer(model, tokens, chat=chat, chunk_size=50).answers(PASSAGE)
        apart = [alone(model, tokens, ask, chat=chat, chunk_size=50) for ask in ASKS]
    if "dynamic" not in spec:  # there the length of the longest prompt counts, which is read for all
        assert [one.written for one in together] == [one.written for one in apart]
        for one, other in zip(together, apart, strict=True):
            assert one.likelihoods == pytest.approx(other.likelihoods, abs=1e-4)
    assert all(one.tokens and one.seconds for one in together)


@torch.no_grad()
@pytest.mark.parametrize("number", [0, 1])
def test_likelihoods_are_those_of_the_choices_after_the_prompt(model, number):
    tokens, ask = tokenizer(), ASKS[number]
    form = Form(tokens, chat=False)
    response = alone(model, tokens, ask)
    before, rests = form.choice_ids(ask)
    prompt = [*form.before_ids(), *form.passage_ids(PASSAGE.text)]
    for rest, ours in zip(rests, response.likelihoods, strict=True):
        ids = torch.tensor([[*prompt, *before, *rest]])
        each = model(ids).logits[0].double().log_softmax(-1)
        start = len(prompt) + len(before)
        wanted = sum(float(each[start + place - 1, token]) for place, token in enumerate(rest))
        assert ours == pytest.approx(wanted, abs=1e-3)
        text = tokens.decode([*before, *rest])
        assert text.replace(" ", "").endswith(ask.choices[rests.index(rest)].replace(" ", ""))
    assert likeliest(response) == max(range(3), key=lambda one: response.likelihoods[one])


def test_answers_end_at_stops_and_at_their_most_tokens(model):
    def written(until, most=12):
        return alone(model, tokenizer(), Ask(text="And then?", opening="Then", right="more", until=until, most_tokens=most)).written

    whole = written(())
    assert whole.startswith(written((), most=4))
    assert len(written((), most=4)) < len(whole)
    stop = whole.strip()[3]
    assert written((stop, "not there")) == whole[: whole.index(stop, len(whole) - len(whole.lstrip()))]


def test_the_template_stands_around_the_passage_and_what_spells_special_tokens_is_text():
    form = Form(chatty(), chat=True)
    turns = (Turn(role="user", text="Hello"), Turn(role="assistant", text="Yes?"))
    ids = [*form.before_ids(turns), *form.passage_ids("See <s>here"), *form.ask_ids(ASKS[0])]
    assert form.tokenizer.decode(ids) == (
        "<s>user\nHello\n<s>assistant\nYes?\n<s>user\nSee <s>here\n\nWhich number is it?\n<s>assistant\nIt is"
    )
    bos = form.tokenizer.bos_token_id
    assert ids.count(bos) == 4, "those of the template"
    plain = Form(tokenizer(), chat=False)
    ids = [*plain.before_ids(turns), *plain.passage_ids("See <s>here"), *plain.ask_ids(ASKS[1])]
    assert ids.count(bos) == 1
    assert plain.tokenizer.decode(ids[1:]) == "User: Hello\nAssistant: Yes?\nSee <s>here\n\nWhat comes first?\nAnswer:"


def test_what_cannot_be_asked_is_refused(model):
    with pytest.raises(InputError, match="no chat template"):
        ModelAnswerer(model, tokenizer(), chat=True)
    changing = chatty()
    changing.chat_template = "{{ messages[0].content | upper }}"
    with pytest.raises(InputError, match="does not repeat what the user says as it is"):
        ModelAnswerer(model, changing)
    with pytest.raises(InputError, match="is an encoder-decoder"):
        ModelAnswerer(tiny_encoder_decoder(), tokenizer())
    broken = tiny_model(vocab_size=VOCABULARY)
    broken.lm_head.weight.data[3] = float("nan")
    with pytest.raises(LongreachError, match="not finite numbers after"):
        ModelAnswerer(broken, tokenizer()).answers(PASSAGE)
    with pytest.raises(ValueError, match="is not among the choices"):
        Ask(text="?", right="a", choices=("b",))


def test_of_equal_choices_the_first_is_likeliest():
    assert likeliest(Response(likelihoods=(-1.0, -1.0))) == 0
    assert likeliest(Response()) is None

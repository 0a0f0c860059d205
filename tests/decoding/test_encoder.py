import pytest

from longreach.decoding.encoder import Encoder
from tests.evaluation.samples import STYLES, real_text, tokenizer


@pytest.mark.parametrize("style", STYLES)
def test_the_prefix_is_the_special_tokens_before_a_text(style):
    assert Encoder(tokenizer(style)).prefix == ([] if style == "plain" else [0])


@pytest.mark.parametrize("style", STYLES)
def test_text_that_spells_a_special_token_is_text(style):
    encoder = Encoder(tokenizer(style))
    assert 0 not in encoder.encode("a <s> b")
    assert 0 in tokenizer(style)("a <s> b", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("style", STYLES)
def test_text_inside_another_has_no_dummy_space(style):
    encoder = Encoder(tokenizer(style))
    ids = [*encoder.encode("The end."), *encoder.encode_inside("\nThe pass key is 12345.\n")]
    assert tokenizer(style).decode(ids) == "The end.\nThe pass key is 12345.\n"


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("count", [1, 100, 3000])
def test_first_tokens_are_those_of_the_whole_text(style, count):
    encoder = Encoder(tokenizer(style))
    assert encoder.first_tokens(real_text()[:60_000], count) == encoder.encode(real_text()[:60_000])[:count]


def test_first_tokens_of_a_short_text_are_all():
    encoder = Encoder(tokenizer())
    assert encoder.first_tokens("a short text", 1000) == encoder.encode("a short text")


def test_lines_and_sentences_end():
    encoder = Encoder(tokenizer())

    def breaks(text):
        ids = encoder.encode(text)
        return [tokenizer().decode(ids[: i + 1]) for i in range(len(ids) - 1) if encoder.breaks(ids[i], ids[i + 1])]

    assert breaks("One.two it 3.5 is. No\nWhat? Yes") == ["One.two it 3.5 is.", "One.two it 3.5 is. No\n", "One.two it 3.5 is. No\nWhat?"]

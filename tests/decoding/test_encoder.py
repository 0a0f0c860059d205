import copy

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


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("style", STYLES)
def test_ids_are_those_of_the_tokenizers_own_call(style, special):
    texts = [real_text()[:20_000], "", "a <s> b\n", "  two  spaces, \u00e9\u4e2d\U0001f600 "]
    wanted = [tokenizer(style)(text, add_special_tokens=False, split_special_tokens=not special)["input_ids"] for text in texts]
    encoder = Encoder(tokenizer(style), special=special)
    tokenizer(style)("a", split_special_tokens=special)  # as somebody else uses the tokenizer between two texts
    assert [encoder.encode(text) for text in texts] == wanted
    assert encoder.lengths(texts) == [len(ids) for ids in wanted]


@pytest.mark.parametrize("setting", ["enable_truncation", "enable_padding"])
def test_a_tokenizer_that_cuts_or_pads_encodes_the_whole_text_and_no_more(setting):
    changed = copy.deepcopy(tokenizer())
    getattr(changed.backend_tokenizer, setting)(**{"max_length": 3} if setting == "enable_truncation" else {"length": 500})
    assert Encoder(changed).encode(real_text()[:300]) == Encoder(tokenizer()).encode(real_text()[:300])


def test_a_tokenizer_with_a_call_of_its_own_is_asked_by_it():
    class Shouting(type(tokenizer())):
        def _encode_plus(self, text, **options):
            return super()._encode_plus([each.upper() for each in text] if isinstance(text, list) else text.upper(), **options)

    own = Shouting(tokenizer_object=tokenizer().backend_tokenizer)
    assert Encoder(own).encode("loud") == Encoder(tokenizer()).encode("LOUD") != Encoder(tokenizer()).encode("loud")
    assert Encoder(own).lengths(["loud"]) == [len(Encoder(tokenizer()).encode("LOUD"))]


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

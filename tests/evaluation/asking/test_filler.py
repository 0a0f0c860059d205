"""Real text is cut to a number of units, never over, and pieces stand where they should."""

import pytest

from longreach.core.errors import InputError
from longreach.decoding.encoder import Encoder
from longreach.evaluation.asking.filler import Filler, placed
from longreach.evaluation.asking.form import Form
from longreach.evaluation.asking.units import Characters, Tokens
from tests.evaluation.samples import STYLES, real_text, tokenizer

UNITS = {**{style: Tokens(Form(tokenizer(style), chat=False)) for style in STYLES}, "characters": Characters()}


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
@pytest.mark.parametrize("count", [1, 7, 100, 999, 20_000])
@pytest.mark.parametrize("start", [0, 12_345])
def test_never_over_and_a_few_words_under(units, count, start):
    cut = Filler(real_text(), units).cut(count, start)
    assert units.count(cut) <= count
    at = real_text().index(cut) + len(cut)
    assert not cut or cut[-1].isspace() or real_text()[at].isspace(), "no word is torn"
    if count >= 100:
        assert units.count(cut) >= count - (12 if units.name == "tokens" else 50) - count // 500, "a long word has no room"


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
def test_a_long_text_is_counted_in_blocks(units, monkeypatch):
    whole = []
    for size in (10**9, 500):
        monkeypatch.setattr("longreach.evaluation.asking.filler._BLOCK", size)
        whole.append(Filler(real_text(), units).cut(9_000, 12_345))
    assert units.count(whole[1]) <= 9_000
    assert units.count(whole[1]) >= 0.99 * units.count(whole[0])


def test_tokens_are_those_that_a_plain_prompt_has():
    text = real_text()[:5000]
    assert UNITS["metaspace"].count(text) == len(Encoder(tokenizer("metaspace")).encode(text))


def test_a_text_that_ends_before_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"fewer than 900 characters; give more text \(--text\), or choose shorter lengths"):
        Filler("word " * 100, UNITS["characters"]).cut(900)


def test_passages_are_spread_over_the_text_and_begin_again():
    filler = Filler(real_text(), UNITS["characters"])
    starts = [filler.start(number, 60_000) for number in range(6)]
    assert len(set(starts)) == 4
    assert starts[4:] == starts[:2]
    assert all(start + 60_000 <= len(real_text()) for start in starts)


def test_pieces_stand_at_their_depths_between_lines_or_sentences():
    text = "One two three. " * 50 + "\n" + "Four five.\n" * 50
    whole = placed(text, [(1.0, "[end]"), (0.0, "[a]"), (0.5, "[b]"), (0.5, "[c]")])
    assert whole.startswith("[a]One")
    assert whole.endswith("[end]")
    assert "[b][c]" in whole
    assert abs(whole.index("[b]") / len(whole) - 0.5) < 0.02
    before = whole[: whole.index("[b]")]
    assert before.endswith((". ", "\n"))
    assert whole.replace("[a]", "").replace("[b]", "").replace("[c]", "").replace("[end]", "") == text


def test_without_a_break_a_piece_goes_to_an_end():
    assert placed("nowhere to cut", [(0.4, "|")]) == "|nowhere to cut"

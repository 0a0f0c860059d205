"""What is too long is cut at word borders, and no more than needed."""

import pytest

from longreach.evaluation.asking.cutting import SIDES, cut, kept_of

TEXT = " ".join(f"word{number}" for number in range(2000))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("room", [1, 7, 100, 1234, 15_000])
def test_whole_words_fill_the_room(side, room):
    counted = []

    def fits(part):
        counted.append(part)
        return len(part), room

    kept = cut(TEXT, side, fits)
    assert len(kept) <= room
    assert len(kept) >= 0.98 * room - 18
    assert len(counted) <= 12
    words, all_words = kept.split(), TEXT.split()
    assert set(words) <= set(all_words)
    head = next((at for at, word in enumerate(words) if word != all_words[at]), len(words))
    tail = len(words) - head
    assert words[head:] == all_words[len(all_words) - tail :]
    assert {"left": head, "right": tail}.get(side, 0) == 0
    if side == "middle":
        assert abs(len(" ".join(words[:head])) - len(" ".join(words[head:]))) <= 20


def test_a_text_without_spaces():
    assert kept_of("一二三四五六", 3, "right") == "一二三"
    assert kept_of("一二三四五六", 2, "left") == "五六"
    assert kept_of("x" * 50, 20, "middle") == ""
    assert kept_of("one two three four", 9, "middle") == "one\nfour"
    assert kept_of("short", 20, "left") == "short"

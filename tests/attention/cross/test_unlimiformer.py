import pytest

from longreach.attention.cross.unlimiformer import Unlimiformer


@pytest.mark.parametrize("length", [33, 40, 48, 49, 100, 257])
def test_the_middle_half_of_a_piece_is_kept(length):
    """A quarter of the window stands on either side of what is kept, but for the ends of the text."""
    pieces = Unlimiformer().pieces(length, 32)
    for begin, end, since, until in pieces:
        assert end - begin == 32
        assert since - begin >= 8 or since == 0
        assert end - until == 8 or until == length
    assert all(until - since == 16 for _, _, since, until in pieces[1:-1])


def test_a_piece_without_overlap_is_kept_whole_but_for_the_last():
    assert Unlimiformer(overlap=0).pieces(70, 32) == ((0, 32, 0, 32), (32, 64, 32, 64), (38, 70, 64, 70))


def test_the_window_is_the_budget_unless_another_is_given():
    assert (Unlimiformer().keys_seen(32), Unlimiformer(budget=5).keys_seen(32)) == (32, 5)

import numpy as np
import pytest

from longreach.core.errors import InputError
from longreach.decoding.encoder import Encoder
from longreach.evaluation.text import cut_windows, read_texts
from tests.evaluation.samples import real_text, tokenizer


def test_texts_are_joined_in_order(tmp_path):
    first, second = tmp_path / "b.txt", tmp_path / "a.txt"
    first.write_bytes(b"\xef\xbb\xbfone\r\n")
    second.write_text("zwei ü", encoding="utf-8")
    assert read_texts([first, second]) == "one\r\n\n\nzwei ü"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"abc\xff\xfe", r"x\.txt is not UTF-8 text \(byte 0xff at offset 3\)"),
        (b"\xef\xbb\xbfab\xe9", r"x\.txt is not UTF-8 text \(byte 0xe9 at offset 5\)"),
        (b"ab\0c", r"x\.txt is not text \(byte 0x00 at offset 2\)"),
        (b"", r"x\.txt holds no text"),
        (b" \n ", r"x\.txt holds no text"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, data, says):
    path = tmp_path / "x.txt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=says):
        read_texts([path])


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none\.txt: No such file"):
        read_texts([tmp_path / "none.txt"])
    with pytest.raises(InputError, match="cannot read"):
        read_texts([tmp_path])


@pytest.mark.parametrize("count", [None, 5])
def test_windows_are_even_disjoint_parts_that_begin_lines(count):
    text = real_text()
    found = cut_windows(Encoder(tokenizer()), text, 1000, count)
    assert [len(window) for window in found] == [1000] * (count or 4)
    texts = [tokenizer().decode(window.tolist())[:-20] for window in found]  # the last token may be half a character
    starts = [text.index(words) for words in texts]
    assert all(start == 0 or text[start - 1] == "\n" for start in starts)
    assert all(start + len(words) < after for start, words, after in zip(starts, texts, [*starts[1:], len(text)], strict=True))
    gaps = np.diff(starts)
    assert gaps.max() - gaps.min() < len(text) / len(found) / 4


def test_the_default_is_as_many_windows_as_fit():
    text, encoder = real_text()[:30_000], Encoder(tokenizer())
    tokens = len(encoder.encode(text))
    assert len(cut_windows(encoder, text, tokens // 3)) == 2
    assert len(cut_windows(encoder, text, tokens // 6)) == 4
    assert len(cut_windows(encoder, text, tokens // 12)) == 4
    assert len(cut_windows(encoder, text, tokens // 12, most=8)) == 8
    assert len(cut_windows(encoder, text, tokens)) == 1


def test_a_text_that_is_too_short_is_refused_with_its_length():
    text, encoder = real_text()[:5000], Encoder(tokenizer())
    tokens = len(encoder.encode(text))
    with pytest.raises(InputError, match=f"it has {tokens} tokens, and 1 window of {tokens + 1} tokens"):
        cut_windows(encoder, text, tokens + 1)
    with pytest.raises(InputError, match=f"it has {tokens} tokens, and 2 windows of {tokens - 1} tokens"):
        cut_windows(encoder, text, tokens - 1, least=2)
    with pytest.raises(InputError, match=f"it has {tokens} tokens, and 9 windows of {tokens // 8} tokens"):
        cut_windows(encoder, text, tokens // 8, 9)

import numpy as np
import pytest

from longreach.core.errors import InputError
from longreach.data.documents import Documents, encode, plain_words, prefix, tokenized
from longreach.data.interleave import interleaved
from longreach.data.questions import QuestionGenerator
from longreach.data.sources import read_folder
from tests.evaluation.samples import real_text, tokenizer


def documents(*lengths, end=(99,)):
    """Document d is made of the ids 1000 d, 1000 d + 1, ..."""
    parts = [np.arange(length, dtype=np.int32) + 1000 * number for number, length in enumerate(lengths)]
    return Documents(np.concatenate(parts), np.cumsum(lengths), end)


def test_a_folder_is_read_whole_and_what_is_no_text_is_named(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "code.py").write_text("x = 1\n")
    (tmp_path / "book.txt").write_text("\ufeffOnce upon a time.", encoding="utf-8")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\x00")
    (tmp_path / ".hidden").write_text("no")
    texts = read_folder(tmp_path)
    assert dict(zip(texts.names, texts.contents, strict=True)) == {"book.txt": "Once upon a time.", "deep/code.py": "x = 1\n"}
    assert texts.skipped == ("empty.txt is empty", "picture.png is no UTF-8 text")
    assert texts.told == "Read 2 text files. Not read: 2 files (empty.txt is empty; picture.png is no UTF-8 text)."


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no text"):
        read_folder(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        read_folder(tmp_path / "none")


def test_a_span_is_running_text_of_one_document():
    found = documents(500, 300)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(400):
        ids, numbers = found.span(rng, 100)
        assert (np.diff(ids) == 1).all()
        assert (numbers == 0).all()
        seen.add(int(ids[0]) // 1000)
    assert seen == {0, 1}


def test_short_documents_share_a_span_and_stay_apart():
    found = documents(30, 20, 10)
    rng = np.random.default_rng(0)
    for _ in range(100):
        ids, numbers = found.span(rng, 100)
        assert len(ids) == len(numbers) == 100
        for number in range(int(numbers[-1]) + 1):
            part = ids[numbers == number]
            assert part[0] % 1000 == 0, "a document begins at its beginning"
            assert (np.diff(part[part != 99]) == 1).all()
            if number < numbers[-1]:
                assert part[-1] == 99
                assert (part == 99).sum() == 1


def test_long_documents_come_up_by_their_length():
    found = documents(900, 100)
    rng = np.random.default_rng(0)
    first = [int(found.span(rng, 50)[0][0]) < 1000 for _ in range(1000)]
    assert 0.86 < np.mean(first) < 0.94


def test_tokens_are_kept_for_the_next_run(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text(real_text()[:2000])
    texts, cache = read_folder(tmp_path), tmp_path / "run" / "tokens.npz"
    first = tokenized(texts, tokenizer(), cache)
    assert first.ids.tolist() == encode(tokenizer(), texts.contents[0])
    monkeypatch.setattr("longreach.data.documents.encode", None)  # nothing may be encoded again
    assert tokenized(texts, tokenizer(), cache).ids.tolist() == first.ids.tolist()
    (tmp_path / "a.txt").write_text(real_text()[:1999])
    with pytest.raises(TypeError):
        tokenized(read_folder(tmp_path), tokenizer(), cache)


@pytest.mark.parametrize(("style", "first"), [("digits", [0]), ("plain", [])])
def test_the_tokens_before_a_text(style, first):
    assert prefix(tokenizer(style)) == first


def test_plain_words():
    assert plain_words(["The cat sat; on 3 mats under Überseehafen extraordinarily a table"]) == ["cat", "mats", "table", "under"]


def test_chunks_are_dealt_out_in_turn():
    found = documents(4000, 4000, 4000)
    ids = interleaved(np.random.default_rng(0), found, 250, mixed=3, chunk=20)
    assert len(ids) == 250
    streams = [ids[start : start + 20] for start in range(0, 240, 20)]
    for stream in range(3):
        text = np.concatenate(streams[stream::3])
        assert (np.diff(text) == 1).all(), "each goes on where its last chunk ended"
    assert len({int(part[0]) for part in streams}) == len(streams)


def test_questions_are_about_the_text_and_answered_by_it():
    text = real_text()[:60_000]
    ids = np.array(encode(tokenizer(), text), dtype=np.int32)
    source = Documents(ids, np.array([len(ids)]))
    make = QuestionGenerator(
        encode=lambda words: encode(tokenizer(), words), decode=lambda some: tokenizer().decode(some), documents=source, eos=1
    )
    rng = np.random.default_rng(0)
    for _ in range(20):
        sample = make.sample(rng, 600)
        assert len(sample) == 600
        assert sample[-1] == 1
        words = " ".join(tokenizer().decode(sample).split())
        mark = max(words.rfind(mark) for mark in (" Answer: ", " Assistant: ", " The text says: "))
        assert mark > 0
        answer = words[mark:].partition(": ")[2].partition("<unk>")[0].strip()
        assert len(answer.split()) >= 3
        assert answer in words[:mark]

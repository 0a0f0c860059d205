"""The recipe that compares an encoder by length runs from end to end, in small."""

import copy

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from longreach.testing.models import tiny_learned
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer
from tests.recipes import EXPERIMENTS, rows, run


@pytest.fixture
def minilm(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return __import__("minilm")


@pytest.fixture(scope="module")
def bert_tokenizer():
    """Puts a special token before and one behind each text, as BERT's does."""
    found = copy.deepcopy(tokenizer())
    found.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A <unk>", special_tokens=[("<s>", 0), ("<unk>", 1)])
    return found


def test_documents_have_their_length_and_the_fact_at_its_depth(minilm, bert_tokenizer):
    texts = minilm.Texts(bert_tokenizer, real_text())
    haystack = texts.haystack(0, 1024)
    for length in (256, 1024):
        for depth, before in ((0.0, 0.0), (0.3, 0.3), (1.0, 1.0)):
            fact = minilm.Fact(name="Alice Adams", key=12345, depth=depth)
            ids = texts.document(haystack, fact, length)
            assert len(ids) == length
            assert (ids[0], ids[-1]) == (0, 1)
            head, stated, tail = bert_tokenizer.decode(ids[1:-1]).partition(fact.stated)
            assert stated
            assert len(texts.encoder.encode(head)) / (length - 2 - len(texts.encoder.encode(stated))) == pytest.approx(before, abs=0.02)
            assert bert_tokenizer.decode(haystack).startswith(head + tail)
            short = texts.cut(ids, 128)
            assert (len(short), short[:-1], short[-1]) == (128, ids[:127], 1)
            assert texts.cut(ids, length) == ids


def test_sets_differ_in_their_texts_and_people(minilm, bert_tokenizer):
    texts = minilm.Texts(bert_tokenizer, real_text())
    assert texts.haystack(0, 512) == texts.haystack(0, 512) != texts.haystack(1, 512)
    assert minilm.facts(0) == minilm.facts(0) != minilm.facts(1)
    assert len({fact.name for fact in minilm.facts(0)}) == minilm.DOCUMENTS
    with pytest.raises(minilm.InputError, match="too short for documents of 4096 tokens: give 24576 characters"):
        minilm.Texts(bert_tokenizer, real_text()[:20_000]).haystack(0, 4096)


def test_an_embedding_is_the_mean_over_a_text_without_its_padding(minilm):
    model = tiny_learned("bert")
    texts = [[5, 7, 9, 11, 13], [3, 4, 6], [8]]
    expected = torch.stack([model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0) for ids in texts])
    found = minilm.embed(model, texts)
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True))


def test_a_query_counts_whose_own_document_is_the_nearest(minilm):
    documents = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=1)
    queries = torch.tensor([[0.9, 0.1], [0.9, 0.2], [0.6, 0.5]])
    assert minilm.nearest_is_own(queries, documents) == [True, False, True]


def test_an_encoder_is_compared_by_length_and_found_again(tmp_path, bert_tokenizer, monkeypatch, capsys):
    folder, out = tmp_path / "tiny", tmp_path / "evidence"
    tiny_learned("bert", vocab_size=VOCABULARY).save_pretrained(folder)
    bert_tokenizer.save_pretrained(folder)
    (tmp_path / "book.txt").write_text(real_text(), encoding="utf-8")
    given = (
        "--model",
        folder,
        "--name",
        "tiny",
        "--text",
        tmp_path / "book.txt",
        "--work",
        tmp_path / "work",
        "--evidence",
        out,
        "--sets",
        2,
    )
    smaller = {"LENGTHS": (128, 256), "DOCUMENTS": 4}
    run("minilm", monkeypatch, *given, **smaller)
    assert "set 1: " in capsys.readouterr().out
    lengths, claims = rows(out / "lengths" / "tiny.jsonl"), rows(out / "tiny.jsonl")
    found = {(row["method"], row["length"]): row for row in lengths}
    tables = {"grouped_positions", "interpolated_positions", "recurrent_positions", "stretch_positions"}
    assert set(found) == {(method, length) for method in {"stock model", *tables} for length in (128, 256)}
    assert all(row["prompts"] == 8 and row["found_low"] <= row["found"] <= row["found_high"] for row in lengths)
    assert found["recurrent_positions", 128]["found"] == found["stock model", 128]["found"], "it changes nothing inside the window"
    assert found["grouped_positions", 128]["setting"] == "grouped_positions:factor=2"
    assert [row["method"] for row in claims] == sorted([*tables - {"stretch_positions"}] * 2)
    gain = found["grouped_positions", 256]["found"] - found["stock model", 256]["found"]
    assert claims[0]["number"] == pytest.approx(gain)
    assert {row["command"] for row in claims} == {"python experiments/minilm.py --model FOLDER --name tiny --text book.txt --sets 2"}
    run("minilm", monkeypatch, *given, **smaller)
    assert "set 1: " not in capsys.readouterr().out, "what was measured is measured again"

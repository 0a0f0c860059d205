import itertools

import numpy as np
import pytest
import torch

from longreach.core.errors import InputError
from longreach.data.documents import Documents, encode
from longreach.testing.models import random_ids, tiny_model
from longreach.training.examples import SOURCES, Examples, collate, document_mask
from longreach.training.plan import position_sampler
from longreach.training.samplers.base import Geometry
from tests.evaluation.samples import tokenizer
from tests.training.tuning import TARGET, TEXTS, WINDOW

PARTS = [np.array(encode(tokenizer(), text), dtype=np.int32) for text in TEXTS.contents]
DOCUMENTS = Documents(np.concatenate(PARTS), np.cumsum([len(part) for part in PARTS]), [1])


def examples(mixture, sampler="pose", count=40, seq_len=None, documents=DOCUMENTS):
    made = position_sampler(sampler)
    geometry = Geometry(seq_len=made.seq_len(seq_len, WINDOW, TARGET), target=TARGET, trained_window=WINDOW)
    return Examples(
        documents, TEXTS.contents, tokenizer(), mixture=mixture, sampler=made, geometry=geometry, seed=0, count=count
    )  # fmt: skip


@pytest.mark.parametrize("sampler", ["pose", "full_length", "segmented"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_sequence_has_the_length_and_depends_on_its_number_alone(source, sampler):
    first, again = examples({source: 1.0}, sampler), examples({source: 1.0}, sampler)
    again[7]
    length = first.geometry.seq_len
    for index in (0, 7, 3):
        row, same = first[index], again[index]
        for name in ("input_ids", "position_ids", "documents"):
            assert row[name].shape == (length,)
            assert (row[name] == same[name]).all()
        assert row["position_ids"].max() < TARGET
    assert (first[0]["input_ids"] != first[1]["input_ids"]).any()


def test_short_sequences_stand_at_true_positions_inside_the_window():
    for row in (examples({"short": 1}, "full_length")[index] for index in range(5)):
        positions = row["position_ids"].reshape(-1, WINDOW)
        assert (positions == np.arange(WINDOW)).all()
        assert (row["input_ids"].reshape(-1, WINDOW)[:, 0] == 0).all(), "each piece begins as a text begins"
        pieces = row["documents"].reshape(-1, WINDOW)
        assert all(len(set(earlier) & set(later)) == 0 for earlier, later in itertools.pairwise(pieces))


def test_long_text_skips_as_its_positions_are_told_to():
    text = DOCUMENTS.ids
    for row in (examples({"long": 1}, "segmented")[index] for index in range(10)):
        if row["documents"].any():
            continue
        ids, positions = row["input_ids"], row["position_ids"]
        body = ids[positions > 0] if positions[0] == 0 else ids
        starts = [start for start in np.flatnonzero(text == body[0]) if _stands_at(text, start, body, positions[-len(body) :])]
        assert starts, "the tokens stand in the text as far apart as their positions say"


def _stands_at(text, start, ids, positions):
    places = start + positions - positions[0]
    return places[-1] < len(text) and (text[places] == ids).all()


def test_the_mixture_is_kept():
    rows = examples({"short": 0.25, "long": 0.75, "recall": 0}, "randomized", count=2000)
    shares = [int((rows[index]["position_ids"][:5] == np.arange(5)).all()) for index in range(400)]
    assert 0.19 < np.mean(shares) < 0.32


def test_too_little_text_is_refused():
    few = Documents(DOCUMENTS.ids[:200], np.array([200]))
    with pytest.raises(InputError, match="too little text to train on: pose takes sequences from 257 tokens, and it has 200"):
        examples({"long": 1}, documents=few)
    with pytest.raises(InputError, match="plain words .* the text has 0"):
        Examples(DOCUMENTS, ["12 34"], tokenizer(), mixture={"recall": 1}, sampler=position_sampler("pose"),
                 geometry=Geometry(seq_len=64, target=256, trained_window=64), seed=0, count=1)  # fmt: skip


def row(ids, positions, documents):
    return {"input_ids": np.array(ids), "position_ids": np.array(positions), "documents": np.array(documents)}


def test_only_what_begins_a_document_is_not_predicted():
    batch = collate([row([5, 6, 7, 8], [0, 1, 9, 10], [0, 0, 1, 1]), row([1, 2, 3, 4], [0, 5, 6, 7], [0, 0, 0, 0])], tiny_model())
    assert batch["labels"].tolist() == [[5, 6, -100, 8], [1, 2, 3, 4]]
    assert batch["position_ids"].dtype == torch.int64
    assert collate([row([1, 2], [0.0, 1.5], [0, 0])], tiny_model())["position_ids"].tolist() == [[0.0, 1.5]]


@pytest.mark.parametrize("family", ["llama", "gemma3", "gemma2", "qwen2_mixed", "gpt_oss", "falcon"])
def test_documents_in_one_row_read_as_if_alone(family):
    model, ids = tiny_model(family), random_ids(1, 24)
    documents = torch.tensor([[0] * 10 + [1] * 14])
    positions = torch.cat([torch.arange(10), torch.arange(14)])[None]
    with torch.no_grad():
        packed = model(ids, position_ids=positions, attention_mask=document_mask(documents, model), use_cache=False).logits
        alone = [model(part, use_cache=False).logits for part in (ids[:, :10], ids[:, 10:])]
        bleeding = model(ids, position_ids=positions, attention_mask=torch.ones_like(ids), use_cache=False).logits
    assert (packed - torch.cat(alone, 1)).abs().max() < 1e-4
    assert (bleeding - packed).abs().max() > 0.01


def test_a_chunk_sees_the_chunk_before_the_skip():
    model, ids = tiny_model(), random_ids(1, 24)
    positions = torch.cat([torch.arange(10), torch.arange(14) + 60])[None]
    other = ids.clone()
    other[0, 3] = (other[0, 3] + 1) % 90
    mask = document_mask(torch.zeros_like(ids), model)
    with torch.no_grad():
        one, two = (model(text, position_ids=positions, attention_mask=mask, use_cache=False).logits[0, -1] for text in (ids, other))
        parted = [model(text, position_ids=positions, use_cache=False).logits[0, -1] for text in (ids, other)]
    assert (one - two).abs().max() > 1e-3
    assert torch.equal(*parted), "without a mask transformers parts the chunks: if this ever changes, the mask may go"

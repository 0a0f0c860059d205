import itertools
import re

import numpy as np
import pytest

from longreach.core.errors import InputError
from longreach.data.bootstrap import BootstrapGenerator
from longreach.data.documents import Documents

EOS = 0
WORDS = ["".join(parts) for parts in itertools.product(("ba", "ke", "lo", "mi", "nu", "ra"), ("sto", "vri", "zen", "pal", "dug"),
                                                      ("den", "ful", "gor", "hat", "jin", "wex", "yob", "cik", "tum", "qel"))]  # fmt: skip


def encode(text):
    return list(text.encode())


def decode(ids):
    return bytes(ids).decode(errors="replace")


def documents(count=40, sentences=120):
    """Sentences of six words each, no two alike."""
    rng = np.random.default_rng(0)
    texts = [
        " ".join(f"The {' '.join(rng.choice(WORDS, size=4, replace=False))} {number * sentences + i}." for i in range(sentences))
        for number in range(count)
    ]
    ids = [np.array(encode(text), dtype=np.int32) for text in texts]
    return Documents(np.concatenate(ids), np.cumsum([len(one) for one in ids]), [EOS])


@pytest.fixture(scope="module")
def generator():
    return BootstrapGenerator(encode=encode, decode=decode, documents=documents(), eos=EOS)


def parts(tokens):
    """(topic, the texts, the quoted sentences) of a sample; None where it has no task."""
    text = decode(tokens[: tokens.index(EOS)]) if EOS in tokens else ""
    if (topic := re.search("“(.+?)”", text)) is None:
        return None
    _, *chunks, response = text.split("\n\n")
    return topic[1], chunks, [line.removeprefix("- ") for line in response.splitlines()[1:]]


def first_about(topic, chunk):
    """The naive summary of a chunk: its first whole sentence with the topic."""
    whole = re.split(r"(?<=[.]) ", chunk)[1:-1]
    return next((sentence for sentence in whole if topic in re.findall("[a-z]+", sentence.lower())), None)


@pytest.mark.parametrize("length", [8, 100, 500, 2000, 8000])
def test_texts_have_the_length_asked_for_and_hang_on_the_seed_alone(generator, length):
    for seed in range(10):
        tokens = generator.sample(np.random.default_rng(seed), length)
        assert len(tokens) == length
        assert tokens == generator.sample(np.random.default_rng(seed), length)


def test_the_response_quotes_every_text_that_speaks_of_the_topic_and_no_other(generator):
    quoted, silent = 0, 0
    for seed in range(20):
        topic, chunks, lines = parts(generator.sample(np.random.default_rng(seed), 8000))
        said = [first_about(topic, chunk) for chunk in chunks]
        assert lines == [sentence for sentence in said if sentence is not None]
        assert lines
        quoted += len(lines)
        silent += said.count(None)
    assert quoted / 20 > 3, "one answer is brought together from several texts"
    assert silent / 20 > 3, "most of what is read does not bear on it"


def test_the_texts_come_from_several_documents(generator):
    _, chunks, _ = parts(generator.sample(np.random.default_rng(1), 8000))
    numbers = {int(number) // 120 for chunk in chunks for number in re.findall(r"\b\d+(?=\.)", chunk)[1:-1]}
    assert len(numbers) > 5


def test_where_nothing_can_be_asked_there_is_running_text(generator):
    assert parts(generator.sample(np.random.default_rng(0), 100)) is None


def test_text_without_sentences_is_refused():
    with pytest.raises(InputError, match="made of sentences of 4 to 60 words, parted by spaces"):
        BootstrapGenerator(encode=encode, decode=decode, documents=Documents(np.full(5000, 97), np.array([5000])), eos=EOS)

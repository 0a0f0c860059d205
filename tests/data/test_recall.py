import numpy as np
import pytest

from longreach.data.recall import RecallGenerator

WORDS = ("apple", "river", "stone", "winter", "garden", "silver", "bridge", "candle", "forest", "hammer", "island", "kitten", "ladder",
         "market", "needle", "orange")  # fmt: skip
EOS = 0


def encode(text):
    return list(text.encode())


@pytest.fixture
def generator():
    filler = np.random.default_rng(0).integers(128, 256, size=5000).astype(np.uint16)  # no letter or digit of an exercise
    return RecallGenerator(encode=encode, filler=filler, words=np.array(WORDS), eos=EOS)


def decoded(tokens):
    return bytes(token if token < 128 else ord("~") for token in tokens).decode()


@pytest.mark.parametrize("length", [16, 100, 512, 2000])
def test_exercises_have_the_length_asked_for(generator, length):
    for seed in range(50):
        assert len(generator.sample(np.random.default_rng(seed), length)) == length


def test_the_same_seed_gives_the_same_exercise(generator):
    one, again, other = (generator.sample(np.random.default_rng(seed), 300) for seed in (1, 1, 2))
    assert one == again != other


def test_a_passkey_is_stated_once_at_any_depth_and_asked_for_at_the_end(generator):
    depths = []
    for seed in range(200):
        text = decoded(generator._passkey(np.random.default_rng(seed), 600))
        key = text.removesuffix(".\0")[-5:]
        assert key.isdigit()
        assert text.endswith(f"What is the pass key? The pass key is {key}.\0")
        assert text.count(f"The pass key is {key}. Remember it. {key} is the pass key.") == 1
        depths.append(text.index("Remember it"))
    assert min(depths) < 220
    assert max(depths) > 480


def test_facts_are_stated_before_they_are_asked_for(generator):
    asked = 0
    for seed in range(100):
        text = decoded(generator._facts(np.random.default_rng(seed), 800))
        for line in text.replace("~", "\n").split("\n"):
            if line.startswith("Question: what is the "):
                question, answer = line.removesuffix(".").split("? Answer: ")
                statement = f"Remember that {question.removeprefix('Question: what is ')} is {answer}."
                assert statement in text[: text.index(line)]
                asked += 1
    assert asked > 20


def test_a_repeated_passage_repeats_to_the_end(generator):
    for seed in range(50):
        tokens = generator._repeat(np.random.default_rng(seed), 400)[:400]
        assert any(tokens[period:] == tokens[:-period] for period in range(2, 201))

from itertools import permutations

import pytest
import torch

import longreach
from longreach.attention.placement.set_based import SetBased
from longreach.core.errors import InputError, UnsupportedError
from longreach.decoding.reading import new_cache, prefill
from longreach.decoding.sets import PartSet, read_sets, set_ids
from longreach.decoding.writing import plan, read_prompt
from longreach.engine.apply import apply
from longreach.engine.sets import cache_for_sets, side_by_side
from longreach.testing.models import random_ids, tiny_model
from tests.evaluation.samples import STYLES, VOCABULARY, tokenizer

OPTIONS = (" dogs that bark", " cats", " the 17 birds")


def prompt(options=OPTIONS):
    return f"Which is best? <set>{'<or>'.join(options)}</set> Answer: it is"


def model(**settings):
    return tiny_model(vocab_size=VOCABULARY, max_position_embeddings=512, **settings)


@pytest.mark.parametrize("style", STYLES)
def test_every_order_of_parts_is_read_and_written_bit_for_bit_alike(style):
    llama, words = model(), tokenizer(style)
    texts, ids = set(), []
    for order in permutations(OPTIONS):
        ids.append(read_prompt(llama, words, prompt(order), chat=False, method="set_based")[0])
        texts.add("".join(longreach.generate(llama, words, prompt(order), method="set_based", max_new_tokens=8)))
    assert len(texts) == 1
    assert all(torch.equal(each, ids[0]) for each in ids)
    plain = "".join(longreach.generate(llama, words, f"Which is best? {''.join(OPTIONS)} Answer: it is", max_new_tokens=8))
    assert texts != {plain}


@pytest.mark.parametrize("style", STYLES)
def test_ids_are_those_of_the_parts_and_no_mark_is_among_them(style):
    words = tokenizer(style)
    ids, (found,) = set_ids(words, "x", SetBased().parts(prompt()), begins=True)
    text = words.decode(ids[0], skip_special_tokens=True)
    assert "<" not in text
    assert text.startswith("Which is best")
    assert text.endswith(" Answer: it is")
    parts = [words.decode(part) for part in ids[0, found.start : found.start + sum(found.lengths)].split(found.lengths)]
    assert sorted(part.strip() for part in parts) == sorted(option.strip() for option in OPTIONS)
    assert ids[0, 0] == words.bos_token_id or style == "plain"
    assert found.saved == sum(found.lengths) - max(found.lengths)


def test_a_prompt_without_marks_is_read_as_ever():
    llama, words = model(), tokenizer()
    ids, sets = read_prompt(llama, words, "no marks here", chat=False, method="set_based")
    assert torch.equal(ids, read_prompt(llama, words, "no marks here", chat=False, method=None)[0])
    assert sets == ()


def test_marks_are_read_where_the_method_is_applied_already():
    llama, words = model(), tokenizer()
    wanted = "".join(longreach.generate(llama, words, prompt(), method="set_based", max_new_tokens=6))
    with apply(llama, "set_based"):
        assert "".join(longreach.generate(llama, words, prompt(), max_new_tokens=6)) == wanted
    _, sets = read_prompt(llama, words, prompt(), chat=False, method=None)
    assert sets == ()


def test_a_set_takes_the_positions_of_its_longest_part():
    ids, sets = random_ids(1, 40), (PartSet(4, (10, 20)),)
    llama = tiny_model(max_position_embeddings=32)
    assert plan(llama, "tiny", ids, method="set_based", max_new_tokens=2, sets=sets).concerns == ()
    assert "go beyond the 32" in plan(llama, "tiny", ids, method="set_based", max_new_tokens=3, sets=sets).concerns[0]


def test_a_prompt_that_ends_with_a_set_is_refused():
    with pytest.raises(InputError, match="the prompt ends with a set"):
        longreach.generate(model(), tokenizer(), "a <set>b<or>c</set>", method="set_based")
    with pytest.raises(InputError, match=r"set_based: the last set has no </set>"):
        longreach.generate(model(), tokenizer(), "a <set>b<or>c", method="set_based")


def test_a_set_may_begin_a_prompt_and_follow_on_another():
    llama, words = model().double(), tokenizer("plain")
    texts = {
        "".join(longreach.generate(llama, words, f"<set>{a}<or>{b}</set><set>{b}<or>{a}</set> so", method="set_based", max_new_tokens=6))
        for a, b in permutations(("one two", "three"))
    }
    assert len(texts) == 1


def test_frequencies_of_another_method_stand_beside_it():
    llama, words = model(), tokenizer()
    a, b = (
        "".join(longreach.generate(llama, words, prompt(order), method="yarn:factor=4+set_based", max_new_tokens=6))
        for order in (OPTIONS, OPTIONS[::-1])
    )
    assert a == b
    with pytest.raises(UnsupportedError, match="longreach compute attention"):
        longreach.generate(llama, words, prompt(), method="set_based+log_n")


def test_the_plain_model_refuses_a_cache_with_sets_and_others_are_refused_for_sets():
    llama, ids = tiny_model(), random_ids(1, 20)
    cache = cache_for_sets()
    with apply(llama, "set_based"):
        read_sets(ids, (PartSet(4, (5, 6)),), cache, lambda part: prefill(llama, part, cache=cache))
    with pytest.raises(longreach.LongreachError):
        prefill(llama, ids, cache=cache)
    sliding = tiny_model("gemma3")
    with apply(sliding, "set_based"):
        held = new_cache(sliding)
        prefill(sliding, ids, cache=held)
        with pytest.raises(longreach.LongreachError, match="keys and values of all tokens"), side_by_side(held) as put_aside:
            put_aside()

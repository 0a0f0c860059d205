"""Prompts have an exact length, hold what they should, and are scored as they should, for tokenizers of every kind."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from longreach.core.errors import InputError, LongreachError
from longreach.decoding.encoder import Encoder
from longreach.evaluation.rows import Row
from longreach.evaluation.tasks.retrieval import needle
from longreach.evaluation.tasks.retrieval._retrieval import ANSWER_ROOM, CANDIDATES, RetrievalCase
from longreach.evaluation.tasks.retrieval.needle import Needle
from longreach.evaluation.tasks.retrieval.passkey import Passkey
from longreach.evaluation.text import cut_windows
from longreach.testing.models import tiny_model
from tests.evaluation.samples import STYLES, VOCABULARY, Copier, real_text, tokenizer

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
QUESTION = {Passkey: r"\nWhat is the pass key\? The pass key is ?", Needle: r"\nThe special magic number for (\w+) is: ?"}
FACT = {
    Passkey: r"\nThe pass key is (\d{5})\. Remember it\. \1 is the pass key\.\n",
    Needle: r"\nOne of the special magic numbers for (?:\w+) is: (\d{5})\.\n",
}
ROWS = (Row(task="passkey", model="m", method="", length=300, version="1", settings={}),)


@pytest.fixture(scope="module", params=STYLES)
def encoder(request):
    return Encoder(tokenizer(request.param))


def make(task, encoder, length, depth=0.5, seed=0, sample=0):
    (haystack,) = cut_windows(encoder, real_text(), 4096, 1)
    return task.prompt(encoder, length=length, depth=depth, seed=seed, sample=sample, haystack=haystack)


def words(encoder, ids):
    return encoder.tokenizer.decode(ids[len(encoder.prefix) :])


def as_case(prompt):
    return RetrievalCase(ids=prompt.ids, rows=ROWS, written=len(prompt.answers[prompt.right]), prompt=prompt)


@pytest.mark.parametrize("task", [Passkey(), Needle()], ids=str)
@pytest.mark.parametrize("length", [300, 301, 512, 777, 2048])
def test_prompt_and_room_for_the_answer_have_the_exact_length(task, encoder, length):
    for depth in DEPTHS:
        prompt = make(task, encoder, length, depth)
        assert len(prompt.ids) == length - ANSWER_ROOM
        assert max(map(len, prompt.answers)) <= ANSWER_ROOM
        assert prompt.ids[: len(encoder.prefix)].tolist() == encoder.prefix


@pytest.mark.parametrize("task", [Passkey(), Needle()], ids=str)
@pytest.mark.parametrize("depth", DEPTHS)
def test_the_fact_stands_whole_at_its_depth_and_the_question_at_the_end(task, encoder, depth):
    prompt = make(task, encoder, 1024, depth)
    text = words(encoder, prompt.ids.tolist())
    facts = list(re.finditer(FACT[type(task)], text))
    assert len(facts) == 1
    right = words(encoder, prompt.ids.tolist() + prompt.answers[prompt.right])
    assert re.fullmatch(rf"(?s).*{QUESTION[type(task)]}{facts[0][1]}", right)
    head, tail = len(text) if depth == 1 else facts[0].start(), len(text) - facts[0].end()
    if depth == 1:
        assert re.fullmatch(QUESTION[type(task)], text[facts[0].end() :])
    elif depth == 0:
        assert text[: facts[0].start()].strip() in ("", text[:200].partition("\n")[0])  # only the head
    else:
        assert head / (head + tail) == pytest.approx(depth, abs=0.1)
        assert text[: facts[0].start()].rstrip()[-1] in ".!?" or text[facts[0].start() - 1] == "\n"  # a sentence or line has ended


@pytest.mark.parametrize("task", [Passkey(), Needle(), Passkey(digits=1), Needle(digits=7)], ids=str)
def test_ten_candidates_differ_in_their_first_token_and_continue_the_prompt(task, encoder):
    for sample in range(3):
        prompt = make(task, encoder, 777, sample=sample)
        assert len(prompt.answers) == CANDIDATES == len({answer[0] for answer in prompt.answers})
        question = words(encoder, prompt.ids.tolist()).rpartition("\n")[2].rstrip()
        for answer in prompt.answers:
            written = encoder.tokenizer.decode([*prompt.ids[-60:].tolist(), *answer]).rpartition(question)[2]
            assert re.fullmatch(rf" \d{{{task.digits}}}", written)
            alone = encoder.encode_inside(f"\n{question}{written}")
            assert [*prompt.ids.tolist(), *answer][-len(alone) :] == alone  # as the tokenizer writes it in one piece


@pytest.mark.parametrize("task", [Passkey(), Needle()], ids=str)
def test_a_length_that_cannot_hold_the_prompt_is_refused_with_one_that_can(task, encoder):
    with pytest.raises(InputError, match=f"{task}: 20 tokens do not hold its prompt") as error:
        make(task, encoder, 20)
    least = int(re.search(r"which needs (\d+)", str(error.value))[1])
    assert len(make(task, encoder, least).ids) == least - ANSWER_ROOM
    with pytest.raises(InputError):
        make(task, encoder, least - 1)


def test_prompts_depend_on_seed_and_sample_alone():
    encoder = Encoder(tokenizer())
    same, again = make(Needle(), encoder, 512), make(Needle(), encoder, 512)
    assert np.array_equal(same.ids, again.ids)
    assert same.answers == again.answers
    frames = {str(Needle().frame(encoder, seed, sample)) for seed in range(3) for sample in range(3)}
    assert len(frames) == 9


def test_every_digit_is_equally_often_right():
    encoder = Encoder(tokenizer())
    frames = [Passkey().frame(encoder, 0, sample) for sample in range(300)]
    digits = Counter(frame.answers[frame.right][0] for frame in frames)
    places = Counter(frame.right for frame in frames)
    assert len(digits) == len(places) == 10
    # 30 expected each; 9 degrees of freedom, 99.9 % of chi-square is 27.9
    for counts in (digits, places):
        assert sum((count - 30) ** 2 / 30 for count in counts.values()) < 27.9


def test_the_needles_haystack_says_nothing_of_magic_numbers():
    assert "magic number for" not in real_text()
    assert len(set(needle._CITIES)) == len(needle._CITIES)


def test_a_tokenizer_without_digits_is_refused():
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(InputError, match="cannot tell numbers apart"):
        make(Passkey(), Encoder(PreTrainedTokenizerFast(tokenizer_object=words)), 512)


@pytest.mark.parametrize("task", [Passkey(), Needle()], ids=str)
def test_a_model_that_copies_answers_everything(task, encoder):
    cases = [as_case(make(task, encoder, 700, depth, sample=sample)) for depth in (0.0, 0.6, 1.0) for sample in range(2)]
    assert task.score(Copier(), cases, chunk_size=128) == [(1.0, 1.0)] * 6


def test_a_model_that_sees_the_end_only_answers_what_stands_there():
    encoder = Encoder(tokenizer())
    cases = [as_case(make(Passkey(), encoder, 700, depth, sample=3)) for depth in (0.0, 1.0)]
    assert Passkey().score(Copier(window=200), cases, chunk_size=128) == [(0.0, 0.0), (1.0, 1.0)]


def test_a_random_model_guesses():
    encoder, model = Encoder(tokenizer()), tiny_model(vocab_size=VOCABULARY)
    cases = [as_case(make(Passkey(), encoder, 300, sample=sample)) for sample in range(100)]
    scores = Passkey().score(model, cases, chunk_size=512)
    assert 1 <= sum(likely for likely, _ in scores) <= 22  # binomial(100, 0.1): 99.98 %
    assert sum(written for _, written in scores) == 0


def test_scores_are_those_of_a_plain_forward():
    """Likelihood and greedy decoding, recomputed without a cache, chunks or batches."""
    encoder, model = Encoder(tokenizer()), tiny_model(vocab_size=VOCABULARY, seed=5)
    prompts = [make(Needle(), encoder, 300, sample=sample) for sample in range(12)]
    for place, prompt in enumerate(prompts):  # make half of them right by luck, so that both outcomes are compared
        with torch.no_grad():
            logits = model(torch.from_numpy(prompt.ids).long()[None]).logits[0, -1]
        best = max(range(CANDIDATES), key=lambda i: logits[prompt.answers[i][0]].item())
        prompts[place] = type(prompt)(ids=prompt.ids, answers=prompt.answers, right=best if place % 2 else (best + 1) % CANDIDATES)
    scores = Needle().score(model, [as_case(prompt) for prompt in prompts], chunk_size=64)
    assert [likely for likely, _ in scores] == [0.0, 1.0] * 6
    case = as_case(prompts[0])
    ids = torch.from_numpy(case.ids).long()[None]
    with torch.no_grad():
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False, eos_token_id=None)[
            0, -5:
        ].tolist()
    hit = type(prompts[0])(ids=case.ids, answers=[written, *prompts[0].answers[1:]], right=0)
    miss = type(prompts[0])(ids=case.ids, answers=[[*written[:4], written[4] + 1], *prompts[0].answers[1:]], right=0)
    assert [score[1] for score in Needle().score(model, [as_case(hit), as_case(miss)], chunk_size=64)] == [1.0, 0.0]


def test_logits_that_are_no_numbers_are_an_error():
    encoder, model = Encoder(tokenizer()), tiny_model(vocab_size=VOCABULARY)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(LongreachError, match="not finite numbers at length 300"):
        Passkey().score(model, [as_case(make(Passkey(), encoder, 300))], chunk_size=512)

"""A text is read once: its losses are those of the text alone, and every question is about the text with its own fact."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from longreach.core.errors import LongreachError
from longreach.core.progress import Progress
from longreach.decoding.encoder import Encoder
from longreach.decoding.reading import token_losses
from longreach.engine.apply import apply
from longreach.evaluation.cells import Stopping
from longreach.evaluation.measure import measure, parse_tasks
from longreach.evaluation.readings import Question, TextReading, can_share, merged, read_text
from longreach.evaluation.rows import Row, Rows
from longreach.evaluation.tasks.base import TaskPlan
from longreach.evaluation.tasks.loss.loss import Loss
from longreach.evaluation.tasks.retrieval.needle import Needle
from longreach.evaluation.text import cut_windows
from longreach.testing.models import random_ids, tiny_model
from tests.engine.caches import read
from tests.evaluation.samples import STYLES, VOCABULARY, real_text, tokenizer

EDGES = (64, 128, 256, 512)
CHUNK = 100
ROW = Row(task="made", model="m", method="", length=0, version="1", settings={})


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


def plan(style="digits", *, edges=EDGES, samples=2, asked=None, count=1):
    encoder = Encoder(tokenizer(style))
    windows = tuple(cut_windows(encoder, real_text(), edges[-1] - len(encoder.prefix), count))
    return TaskPlan(
        encoder=encoder, edges=edges, asked=frozenset(asked or edges), windows=windows, depths=(0.0, 0.5, 1.0), samples=samples, seed=0,
        row=ROW,
    )  # fmt: skip


def whole(**changes):
    """Losses and needles of one text, as one reading."""
    of = plan(**changes)
    (reading,) = merged([Loss().reading(of, 0), Needle(shared=True).reading(of, 0)])
    return reading


def scored(model, reading, wanted=lambda row: True, **settings):
    return [row for rows in read_text(model, reading, wanted=wanted, **{"chunk_size": CHUNK, **settings}) for row in rows]


def scores(rows):
    return {row.identity: row.score for row in rows}


class Tokens:
    """Counts what a model reads."""

    def __init__(self, model):
        self.read = 0
        self.hook = model.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, module, positional, named):
        self.read += (positional[0] if positional else named["input_ids"]).numel()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.hook.remove()


# --- what a reading is made of


@pytest.mark.parametrize("style", STYLES)
def test_questions_stand_where_they_should(style):
    of = plan(style)
    reading = Needle(shared=True).reading(of, 0)
    prefix = len(of.encoder.prefix)
    lengths = [question.rows[0].length for question in reading.questions]
    assert set(lengths) == {length for length in EDGES if length >= min(lengths)}
    for question in reading.questions:
        length, depth = question.rows[0].length, question.rows[0].depth
        assert question.stop + len(question.asked) + max(map(len, question.answers)) <= length
        assert max(1, prefix) <= question.place
        assert question.place + len(question.fact) <= question.stop
        room = question.stop - len(question.fact) - prefix
        assert (question.place - prefix) / room == pytest.approx(depth, abs=max(0.25, 20 / room))  # where a line ends
        said = of.encoder.tokenizer.decode([*question.fact, *question.asked, *question.answers[question.right]])
        assert said.count(of.encoder.tokenizer.decode(list(question.answers[question.right])).strip()) == 2, said
    for length in set(lengths):
        facts = [tuple(question.fact) for question in reading.questions if question.rows[0].length == length]
        assert len(facts) == 2 * 3
        assert len(set(facts)) == len(facts), "every question is about a fact of its own"


def test_other_texts_ask_about_other_facts():
    first, second = (Needle(shared=True).reading(plan(count=2), number) for number in (0, 1))
    assert {tuple(one.fact) for one in first.questions}.isdisjoint(tuple(one.fact) for one in second.questions)


def test_readings_of_one_text_become_one():
    long, other = random_ids(2, 20).numpy().astype(np.int32)
    short = long[:10]
    readings = [TextReading(ids=ids, losses=(replace(ROW, length=number),)) for number, ids in enumerate((short, other, long))]
    one, two = merged(readings)
    assert np.array_equal(one.ids, long)
    assert [row.length for row in one.losses] == [0, 2]
    assert np.array_equal(two.ids, other)


# --- losses


@pytest.mark.parametrize("chunk_size", [7, 64, 1000])
def test_losses_are_those_of_the_text_alone_whatever_is_asked(model, chunk_size):
    reading = whole()
    rows = [row for row in scored(model, reading, chunk_size=chunk_size) if row.task == "loss"]
    each = token_losses(model, torch.from_numpy(reading.ids).long()[None], chunk_size=512)[0]
    assert len(rows) == len(reading.losses) == 8
    for row in rows:
        begin, end = row.settings["span"]
        assert row.score == pytest.approx(each[begin - 1 : end - 1].mean().item(), abs=1e-5)


@pytest.mark.parametrize(
    "spec",
    ["self_extend:neighbours=16,group=4", "dynamic_ntk:step=16", "sinks:window_size=32", "gali:window_size=32,local_window=8,chunk_size=4"],
)
def test_questions_leave_losses_alone_under_methods(model, spec):
    reading = whole(edges=(64, 256), samples=1)
    with apply(model, spec, warn=False):
        assert can_share(model)
        found = {row.length: row.score for row in scored(model, reading) if row.task == "loss" and row.settings["span"][1] == row.length}
        alone = {row.length: row.score for row in scored(model, replace(reading, questions=())) if row.settings["span"][1] == row.length}
    assert found == pytest.approx(alone, abs=1e-5)


def test_the_order_of_questions_does_not_matter(model):
    reading = whole()
    mixed = replace(reading, questions=reading.questions[::-1], losses=reading.losses[::-1])
    one, other = scored(model, reading), scored(model, mixed)
    assert scores(one) == scores(other)
    alone = [row for question in reading.questions for row in scored(model, replace(reading, losses=(), questions=(question,)))]
    assert scores(alone) == {row.identity: row.score for row in one if row.task != "loss"}


# --- answers


def by_hand(model, ids, question):
    """What a cache of the text would hold with the fact's keys and values in it, before the question."""
    place, end = question.place, question.place + len(question.fact)
    cache, aside = DynamicCache(), DynamicCache()
    read(model, aside, torch.cat([ids[:, :place], torch.tensor([list(question.fact)])], 1))
    read(model, cache, ids[:, : question.stop])
    for layer, fact in zip(cache.layers, aside.layers, strict=True):
        layer.keys = torch.cat([layer.keys[:, :, :place], fact.keys[:, :, place:], layer.keys[:, :, end:]], 2)
        layer.values = torch.cat([layer.values[:, :, :place], fact.values[:, :, place:], layer.values[:, :, end:]], 2)
    return cache


def greedy(model, ids, question, count):
    """Logits after the question, and what would be written."""
    cache, new, written = by_hand(model, ids, question), torch.tensor([list(question.asked)]), []
    first = None
    for _ in range(count):
        logits = read(model, cache, new)[0, -1]
        first = logits if first is None else first
        written.append(int(logits.argmax()))
        new = torch.tensor([[written[-1]]])
    return first, written


def test_answers_are_those_of_a_cache_made_by_hand(model):
    """Right by likelihood where the first ids say so, right by generation where greedy decoding would write all of it."""
    ids = random_ids(1, 120)
    questions, wanted = [], []
    for number in range(12):
        fact, words = random_ids(2, 9, seed=number).tolist()
        made = Question(
            place=3 + 8 * number, stop=118 - number, fact=fact, asked=words[:5], answers=(), right=0,
            rows=(replace(ROW, length=number, depth=0.0), replace(ROW, length=number, depth=1.0)),
        )  # fmt: skip
        logits, written = greedy(model, ids, made, 4)
        others = [token for token in logits.argsort(descending=True).tolist() if token != written[0]][5:8]
        kind = number % 4
        if kind == 0:  # all of it
            answers, right, expected = [[others[0], 5], written, [others[1], 7]], 1, (1.0, 1.0)
        elif kind == 1:  # its end is another
            answers, right, expected = [[*written[:3], written[3] + 1], [others[0]]], 0, (1.0, 0.0)
        elif kind == 2:  # the best of the candidates, but not what would be written
            answers, right, expected = [[others[2], 4], [others[1], 4], [others[0], 4]], 2, (1.0, 0.0)
        else:  # another candidate is likelier
            answers, right, expected = [[others[0]], [others[1], 4]], 1, (0.0, 0.0)
        questions.append(replace(made, answers=answers, right=right))
        wanted += [((number, 0.0), expected[0]), ((number, 1.0), expected[1])]
    rows = scored(model, TextReading(ids=ids[0].numpy(), questions=tuple(questions)))
    assert {(row.length, row.depth): row.score for row in rows} == dict(wanted)


def test_numbers_that_are_none_are_errors():
    broken = tiny_model(vocab_size=VOCABULARY)
    with torch.no_grad():
        broken.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(LongreachError, match="the logits are not finite numbers at length 256"):
        scored(broken, replace(whole(asked=(256,)), losses=()))


# --- no more is read than is wanted


def spoken(question):
    """Tokens of a fact, and of what is asked and answered up to the last id."""
    return len(question.fact) + len(question.asked) + len(question.answers[question.right]) - 1


def test_a_text_and_its_questions_are_read_once(model):
    reading = whole()
    with Tokens(model) as tokens:
        scored(model, reading)
    assert tokens.read == len(reading.ids) + sum(map(spoken, reading.questions))


def test_it_stops_where_nothing_more_is_wanted(model):
    reading = whole()
    with Tokens(model) as tokens:
        rows = scored(model, reading, wanted=lambda row: row.length <= 128, chunk_size=64)
    asked = [question for question in reading.questions if question.rows[0].length <= 128]
    assert {row.identity for row in rows} == {row.identity for group in reading.groups for row in group if row.length <= 128}
    assert 128 <= tokens.read - sum(map(spoken, asked)) < 128 + 64, "it ends with the chunk"
    with Tokens(model) as tokens:
        assert scored(model, reading, wanted=lambda row: False) == []
    assert tokens.read == 0


def test_what_is_found_decides_what_is_read_on(model):
    found: list[Row] = []
    reading = replace(whole(), losses=())
    with Tokens(model) as tokens:
        for rows in read_text(model, reading, wanted=lambda row: len(found) < 4, chunk_size=CHUNK):
            found.extend(rows)
    first, second = sorted(reading.questions, key=lambda question: question.stop)[:2]
    assert [row.identity for row in found] == [row.identity for question in (first, second) for row in question.rows]
    aside = [len(question.fact) for question in reading.questions if question.place <= second.stop and question.stop > question.place]
    assert tokens.read <= second.stop + sum(aside) + spoken(first) + spoken(second)


class Counted(Progress):
    """What is told."""

    def __init__(self):
        self.done = 0

    def advance(self, tokens):
        self.done += tokens


def test_progress_tells_the_tokens_of_the_text(model):
    counted = Counted()
    scored(model, whole(), progress=counted)
    assert counted.done == EDGES[-1]


def test_what_is_left_of_a_reading_comes_out_the_same(model):
    reading = whole()
    rows = scored(model, reading)
    assert [row.identity for row in rows] == [row.identity for group in reading.groups for row in group], "they come in this order"
    for count in (0, 1, 5, 9, len(rows) - 1):
        known = {row.identity for row in rows[:count]}
        again = scored(model, reading.missing(lambda row, known=known: row.identity in known))
        assert scores(again).items() <= scores(rows).items(), "bit for bit"
        assert {row.identity for row in rows[count:]} <= scores(again).keys()
    assert reading.missing(lambda row: True).needed == 0


def test_what_is_left_keeps_the_frequencies_of_the_whole_text():
    """LongRoPE has two sets, and the length of the text chooses: what is left may be shorter than the window."""
    longrope = tiny_model("llama_longrope", vocab_size=VOCABULARY)
    reading = replace(whole(), questions=())
    rows = scored(longrope, reading, chunk_size=16)
    far = {row.identity for row in rows if row.length > 64}
    assert scores(scored(longrope, reading.missing(lambda row: row.identity in far), chunk_size=16)).items() <= scores(rows).items()


# --- by default


DEFAULT = {"name": "tiny", "to": 512, "text": real_text()}


def test_by_default_four_texts_are_read_at_most(model):
    rows = Rows()
    with Tokens(model) as tokens:
        found = measure(model, tokenizer(), rows=rows, **DEFAULT)
    texts = {row.settings["text"] for row in found if row.task == "loss"}
    assert 2 <= len(texts) <= 4
    of = plan(samples=5, count=4)
    of = replace(of, depths=(0.0, 0.25, 0.5, 0.75, 1.0))
    longest = max(map(spoken, Needle(shared=True).reading(of, 0).questions)) + 2
    questions = sum(row.settings["metric"] == "likelihood" for row in found)
    inside = 7 * 128  # for 384 tokens beyond the window, in steps of 63
    tried = 8 + 16  # tokens that show what can be shared, and that warm up
    assert questions <= 4 * 25 * 3
    assert tokens.read <= len(texts) * (512 + inside) + 4 * 25 * 3 * longest + tried
    with Tokens(model) as tokens:
        again = measure(model, tokenizer(), rows=rows, **DEFAULT)
    assert again == found
    assert tokens.read == 8


def test_a_run_that_was_stopped_comes_to_the_same(model):
    rows, less = Rows(), {**DEFAULT, "windows": 2, "samples": 1}
    found = measure(model, tokenizer(), rows=rows, **less)
    written = list(rows)
    for count in (1, len(written) // 3, len(written) - 2):
        begun = Rows()
        begun.append(written[:count])
        again = measure(model, tokenizer(), rows=begun, **less)
        assert [(row.identity, row.score) for row in again] == [(row.identity, row.score) for row in found]


def test_texts_can_be_limited(model):
    found = measure(model, tokenizer(), stopping=Stopping(texts=1), **DEFAULT)
    assert len({row.settings["text"] for row in found if row.settings["metric"] == "loss"}) == 1
    assert sum(row.length == 512 and row.settings["metric"] == "likelihood" for row in found) <= 25


def test_a_method_that_chooses_by_content_gets_a_prompt_for_every_needle(model, recwarn):
    common = {**DEFAULT, "to": 256, "samples": 1, "depths": [0.5], "windows": 1, "method": "h2o:budget=64"}
    usual = measure(model, tokenizer(), **common)
    assert {row.task for row in usual} == {"loss", "needle", "loss_inside:window_size=128"}
    assert not [each for each in recwarn if "gets a prompt of its own" in str(each.message)]
    with pytest.warns(UserWarning, match=r"h2o:budget=64.* chooses by content .*each needle gets a prompt of its own"):
        named = measure(model, tokenizer(), tasks=parse_tasks("needle:shared=true"), **common)
    assert scores(named).items() <= scores(usual).items()

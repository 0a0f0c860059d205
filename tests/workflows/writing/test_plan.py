import pytest

from longreach.workflows.writing._plan import PlannedPart, fitted, listed, parse_plan, spread, worded


@pytest.mark.parametrize(
    ("line", "point", "words"),
    [
        ("Paragraph 1 - Main Point: The sea - Word Count: 1,000 words.", "The sea", 1000),
        ("**Paragraph 3:** Main Point: [The sea is **blue**] - Word Count: [400 words]", "The sea is blue", 400),
        ("2) The ship (about 250 words)", "The ship", 250),
        ("- the storm", "the storm", None),
        ("1.2 Sub thing", "Sub thing", None),
        ("| 1 | The start | 200 words |", "The start", 200),
        ("# 1. Title: The Beginning", "The Beginning", None),
        ("An introduction, 150 words", "An introduction", 150),
        ("1. Compare 2 ships of 100 tons", "Compare 2 ships of 100 tons", None),
        ("12. 长城 - 300 words", "长城", 300),
    ],
)
def test_a_line_is_read_however_it_is_written(line, point, words):
    assert parse_plan(line) == (PlannedPart(point, words),)


@pytest.mark.parametrize(
    "line", ["Here is the plan:", "", "Total: 2000 words", "3", "- ...", "1. Main point: ... - Word count: ...", "- - -"]
)
def test_what_is_no_point_is_left_out(line):
    assert parse_plan(line) == ()


def test_a_model_that_repeats_itself_does_not_repeat_the_point():
    assert [part.point for part in parse_plan("1. the sea\n2. The sea\n3. the ship\n4. the sea")] == ["the sea", "the ship"]


def test_neighbours_become_one_point_where_there_are_too_many():
    plan = [PlannedPart("a", 100), PlannedPart("b", 300), PlannedPart("c"), PlannedPart("d", 50), PlannedPart("e")]
    assert fitted(plan, 2) == [PlannedPart("a; b", 400), PlannedPart("c; d; e", 150)]
    assert fitted(plan, 5) == plan


@pytest.mark.parametrize("passages", [3, 4, 7, 50])
@pytest.mark.parametrize("words", [(None, None, None), (1, 1000, 1), (100, None, 300), (10**9, 1, None)])
def test_every_point_gets_a_passage_and_all_passages_are_given(words, passages):
    counts = spread([PlannedPart(str(number), count) for number, count in enumerate(words)], passages)
    assert sum(counts) == passages
    assert min(counts) >= 1


def test_points_get_passages_by_their_words():
    assert spread([PlannedPart("a", 100), PlannedPart("b", 200), PlannedPart("c", 700)], 10) == [1, 2, 7]


def test_points_are_shown_as_far_as_there_is_room():
    plan = [PlannedPart("a short one"), PlannedPart("one of many more words than that")]
    assert listed(worded(plan, 5, lambda text: len(text.split()))) == "1. a short one\n2. one of many more …"

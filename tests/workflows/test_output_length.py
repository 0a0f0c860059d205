import pytest

from longreach.workflows.output_length import longwriter_lengths, words_asked, words_in


@pytest.mark.parametrize(
    ("asked", "written", "score"),
    [
        (1000, 1000, 100.0),
        (1000, 1300, 90.0),  # (1.3 - 1) / 3 is a tenth
        (1000, 2500, 50.0),
        (1000, 4000, 0.0),
        (1000, 9000, 0.0),
        (1000, 500, 50.0),  # (2 - 1) / 2 is a half
        (1200, 1000, 90.0),
        (1000, 333, 0.0),  # 3.003 times too short
        (1000, 0, 0.0),
    ],
)
def test_the_score_is_that_of_longbench_write(asked, written, score):
    assert longwriter_lengths(asked, written) == pytest.approx(score)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("write a 100-word short thank you email", 100),
        ("Please introduce at least 5 bad habits. The content should be no less than 200 words.", 200),
        ("at least 6,000 words long", 6000),
        ("a 1.5k-word story", 1500),
        ("Ein Text, 2.000 words", 2000),
        ("12 thousand words", 12_000),
        ("写一篇1000字的中国旅游指南", 1000),
        ("a 300-word summary of a 4000 words essay", 4000),
        ("use key words, 3 examples and no long words", None),
        ("version 1.2.3 words", None),
        ("0 words", None),
        ("the 500 wordsmiths", None),
    ],
)
def test_the_length_is_taken_from_the_task(task, words):
    assert words_asked(task) == words


def test_words_are_counted_as_longbench_write_counts_them():
    assert words_in("It's a test, no. 12!") == 5
    assert words_in("长城 is 长") == 4
    assert words_in("- - 12 ...") == 0

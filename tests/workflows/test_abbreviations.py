import pytest

from longreach.workflows.abbreviations import abbreviation_of, expansion_accuracy, letters_of, likeness


@pytest.mark.parametrize(
    ("sentence", "letters"),
    [
        ("How are you?", "hay"),
        ("I don't know", "idk"),
        ("It\u2019s 5 o'clock!", "i5o"),
        ("mother-in-law", "mil"),
        ("Élan vital", "év"),
        ("...", ""),
    ],
)
def test_an_abbreviation_is_the_first_letter_of_each_word(sentence, letters):
    assert abbreviation_of(sentence) == letters


def test_an_abbreviation_is_read_however_it_is_typed():
    assert letters_of("H. a y?") == letters_of("HAY") == "hay"


def test_likeness_grows_with_what_is_shared():
    typed = "iwgbtl"
    likes = [likeness(typed, other) for other in (typed, "iwgbt", "iwgt", "lbi", "xyz")]
    assert likes[0] == 1.0
    assert likes == sorted(likes, reverse=True)
    assert likes[-1] == 0.0
    assert likeness("ab", "ba") < 1.0


def test_accuracy_is_the_share_of_sentences_that_are_right():
    right = ["How are you?", "See you then.", "I don't know", "Yes"]
    assert expansion_accuracy(right, ["how are you", "See you there.", "i don\u2019t know!", "Yes it is"]) == 0.5
    assert expansion_accuracy([], []) == 0.0
    with pytest.raises(ValueError, match="shorter"):
        expansion_accuracy(right, ["one"])

import math

from longreach.workflows.lexical import LexicalIndex

PASSAGES = ("The red fox ran.", "A fox, a fox and a hound!", "Nothing of it here", "")


def test_scores_are_those_of_bm25():
    k1, b, lengths = 1.2, 0.75, [4, 7, 4, 0]
    mean = sum(lengths) / 4
    rarity = {"fox": math.log(1 + (4 - 2 + 0.5) / 2.5), "red": math.log(1 + (4 - 1 + 0.5) / 1.5)}

    def part(word, times, length):
        return rarity[word] * times * (k1 + 1) / (times + k1 * (1 - b + b * length / mean))

    wanted = [part("fox", 1, 4) + part("red", 1, 4), part("fox", 2, 7), 0.0, 0.0]
    assert LexicalIndex(PASSAGES).scores("RED fox?") == wanted


def test_the_best_come_first_and_of_equals_the_earlier():
    assert LexicalIndex(PASSAGES).ranked("fox red") == [0, 1, 2, 3]
    assert LexicalIndex(PASSAGES).ranked("hound") == [1, 0, 2, 3]
    assert LexicalIndex([]).ranked("fox") == []

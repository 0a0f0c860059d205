"""The same documents are classified by headline, paragraph and as a whole, by examples that come before."""

import json
import re
from collections import Counter, defaultdict

import pytest

from longreach.core.errors import InputError
from longreach.core.spec import parse
from longreach.evaluation.tasks.documents._corpus import TOPICS, corpus, labelled
from longreach.evaluation.tasks.documents.length_split_classification import EXAMPLES, LengthSplitClassification
from tests.evaluation.asked import passage as made

LONG = 40_000


def reading(passage, question):
    """The label whose examples have most of the words that few labels have."""
    seen = defaultdict(Counter)
    for said, label in re.findall(r"Text: (.*?)\nLabel: (.*?)\n\n", passage, re.DOTALL):
        for word in set(re.findall(r"[a-z-]+", said.lower())):
            seen[word][label] += 1
    votes = Counter()
    for word in re.findall(r"[a-z-]+", question.partition("Text: ")[2].lower()):
        for label, count in seen[word].items():
            votes[label] += count / seen[word].total() / len(seen[word]) ** 2
    return f"Its label is {votes.most_common(1)[0][0]}."


@pytest.mark.parametrize("task", EXAMPLES, ids=str)
def test_who_learns_from_the_examples_labels_every_text(task):
    for number in range(8):
        passage = made(task, number, LONG)
        for ask in passage.asks:
            assert task.mark(ask, reading(passage.text, ask.text)) == 1, ask.text


def test_parts_have_the_same_documents_and_labels():
    short, middle, long = (made(LengthSplitClassification(part=part)).asks for part in ("headline", "paragraph", "document"))
    for headline, paragraph, document in zip(short, middle, long, strict=True):
        assert headline.right == paragraph.right == document.right
        whole = document.text.partition("Text: ")[2]
        assert whole.startswith(headline.text.partition("Text: ")[2])
        assert paragraph.text.partition("Text: ")[2] in whole


def test_labels_are_given_anew_and_shown_equally_often():
    passages = [made(LengthSplitClassification(part="headline"), number) for number in range(6)]
    shown = [Counter(re.findall(r"^Label: (\w+)$", passage.text, re.M)) for passage in passages]
    assert all(len(count) == 8 and max(count.values()) - min(count.values()) <= 1 for count in shown)
    sports = "goalkeeper|relay team|sprinter|rowing club|cyclist|volleyball|referee|pole vaulter"
    labels = [set(re.findall(rf"(?:{sports}).*\nLabel: (\w+)", passage.text)) for passage in passages]
    assert all(len(label) == 1 for label in labels)
    assert len(set.union(*labels)) > 2


def test_topics_share_no_words_that_say_what_they_are_about():
    for phrases in zip(*TOPICS, strict=True):
        assert len(phrases) == 8
        said = [phrase for topic in phrases for phrase in topic]
        assert len(set(said)) == len(said) == 64


def written(folder, texts=60):
    path, weather = folder / "corpus.jsonl", ("rain", "sun", "snow")
    rows = [{"label": weather[day % 3], "text": f"Day {day}\nThe {weather[day % 3]} of day {day} was early.\nEnd."} for day in range(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_corpus_of_ones_own(tmp_path):
    (task,) = parse(f"length_split_classification:part=document,file={written(tmp_path)}", acts_on="measurement")
    assert parse(task.spec, acts_on="measurement") == (task,)
    passage = made(task, length=1500)
    assert len(passage.asks) == 5
    for ask in passage.asks:
        assert ask.choices == ("rain", "snow", "sun")
        (weather, day) = re.search(r"The (\w+) of day (\d+) was", ask.text).groups()
        assert ask.right == weather
        assert f"of day {day} was" not in passage.text
    shown = re.findall(r"The (\w+) of day \d+ was early.*\nEnd\.\nLabel: (\w+)\n", passage.text)
    assert len(shown) > 10
    assert all(weather == label for weather, label in shown)


def test_a_corpus_that_does_not_fill_a_length_is_refused(tmp_path):
    task = LengthSplitClassification(file=written(tmp_path))
    with pytest.raises(InputError, match="has only 55 texts to show, which do not fill 20000 characters"):
        made(task, length=20_000)


def test_a_folder_for_each_label(tmp_path):
    for label in ("old", "new"):
        (tmp_path / label).mkdir()
        for number in range(3):
            (tmp_path / label / f"{number}.txt").write_text(f"{label} {number}. The rest of it.")
    texts = corpus(tmp_path)
    assert Counter(one.label for one in texts) == {"old": 3, "new": 3}
    assert texts[0].part("headline") == "new 0"
    assert texts[0].part("paragraph") == "The rest of it."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"}\n', "line 1: each line has to be a JSON object"),
        ('{"text": "a", "label": "x"}\nno\n', "line 2: each line"),
        ('{"text": "a", "label": "x"}\n', "has texts of 1 labels, and at least 2 are needed"),
        ('{"text": " ", "label": "x"}\n', "line 1 is empty"),
    ],
)
def test_what_is_no_corpus_is_refused(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(line)
    with pytest.raises(InputError, match=message):
        corpus(path)


def test_the_first_line_is_the_headline_and_the_middle_paragraph_the_paragraph():
    text = labelled("x", "Title\n\nOne.\n\nTwo.\nThree.\n")
    assert [text.part(part) for part in ("headline", "paragraph", "document")] == ["Title", "Two.", "Title\nOne.\nTwo.\nThree."]

import json

import pytest

from longreach.core.errors import InputError
from longreach.endpoint.base import ChatModel, Completion
from longreach.workflows.coherence import ERRORS, coherence, load_annotations, mean_score, sentences_of

SUMMARY = 'Ada Grey finds a letter. Then she leaves for J. Wall\'s house. "Why?" he asks. He is dead.\nShe never learns why.'
SAID = {
    "Ada Grey": "Questions: no confusion\nTypes: no confusion",
    "Then she": "**Questions:** Who is J. Wall? Why does she go there?\nTypes: entity omission, causal omission.",
    '"Why?"': "questions: no confusion\ntypes: No confusion.",
    "He is dead": "Questions: Is he dead or not?\nTypes: inconsistency",
    "She never": "I see no problem with it.",
}


class Annotator(ChatModel):
    """Says of each sentence what is written in SAID."""

    name, concurrency = "annotator", 2

    def __init__(self):
        self.prompts = []

    def count(self, text):
        return None

    def ask(self, request):
        prompt = request.messages[0]["content"]
        self.prompts.append(prompt)
        sentence = prompt.partition("Sentence:\n")[2]
        return Completion(text=next(said for begin, said in SAID.items() if sentence.startswith(begin)), finish_reason="stop", seconds=0)


def test_a_score_is_the_share_of_sentences_that_confuse_nobody():
    found = coherence(model := Annotator(), SUMMARY)
    assert [each.types for each in found.annotations] == [(), ("entity omission", "causal omission"), (), ("inconsistency",)]
    assert found.score == 0.5
    assert found.failed == 1
    assert len(model.prompts) == 5 + 2, "what is not usable is asked again twice"
    assert len(set(model.prompts)) == 7, "a recording would give the same answer to the same request"
    assert all(SUMMARY in prompt and all(error in prompt for error in ERRORS) for prompt in model.prompts)


def test_sentences_end_where_sentences_end():
    assert sentences_of(SUMMARY) == [
        "Ada Grey finds a letter.", "Then she leaves for J. Wall's house.", '"Why?" he asks.', "He is dead.", "She never learns why.",
    ]  # fmt: skip
    assert sentences_of(" \n") == []


def test_files_of_the_authors_program_are_read(tmp_path):
    path = tmp_path / "annotations.json"
    fine, bad = {"questions": None, "types": None}, {"questions": "Who?", "types": "entity omission, salience"}
    path.write_text(json.dumps({"one": {"A.": fine, "B.": bad, "C.": fine}, "two": {"D.": fine}}))
    found = load_annotations(path)
    assert found["one"].annotations[1].types == ("entity omission", "salience")
    assert mean_score(found.values()) == pytest.approx((2 / 3 + 1) / 2)
    path.write_text(json.dumps({"one": {"B.": {"questions": "Who?", "types": ["entity omission"]}}}))
    with pytest.raises(InputError, match="confusing sentences only"):
        load_annotations(path)
    path.write_text("[1]")
    with pytest.raises(InputError, match="no file of annotations"):
        load_annotations(path)


def test_nothing_to_score_is_refused():
    with pytest.raises(InputError, match="the summary is empty"):
        coherence(Annotator(), " ")
    with pytest.raises(InputError, match="no summary"):
        mean_score([])

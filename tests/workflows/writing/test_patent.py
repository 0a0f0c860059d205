import pytest

from longreach.core.errors import InputError
from longreach.testing.scripted import ScriptedWriter
from longreach.workflows.cutting import TextChunk
from longreach.workflows.output_length import words_in
from longreach.workflows.run import composition
from longreach.workflows.spans import Document, Span
from longreach.workflows.writing._recall import Recall, filled, passages_of

TASK = "Write the patent."
TOPICS = ("hinge", "spring", "lamp", "valve", "rotor", "casing")
DRAFT = Document(
    name="draft", text="\n\n".join(f"The {topic} is made of steel. " + f"It holds the {topic} plate. " * 12 for topic in TOPICS)
)


class Examiner(ScriptedWriter):
    """Objects to every text once: to what is not revised yet."""

    def written(self, prompt):
        if prompt.endswith("Notes:"):
            return "NOTHING" if "revised" in prompt.partition("The part:\n")[2] else "Say more."
        if prompt.endswith("Text:") and "Objections:" in prompt:
            return f"revised {super().written(prompt)}"
        return super().written(prompt)


def patented(workflow, writer=ScriptedWriter, *, window=2000, documents=(DRAFT,), **settings):
    model = writer(window=window, **settings)
    run = composition(model, TASK, workflow=workflow, documents=documents)
    parts = list(run.parts())
    return parts, [str(request.messages[-1]["content"]) for request in model.requests], run


def words(text):
    return len(text.split())


def test_all_parts_are_written_in_the_order_of_the_paper():
    parts, _, _ = patented("patent:words=600,part_words=60")
    headed = [part.partition("\n\n")[0] for part in parts if words(part.partition("\n\n")[0]) == 1]
    assert headed == ["Title", "Abstract", "Background", "Summary", "Claims", "Description"]
    assert 600 <= words_in("\n\n".join(parts)) <= 606  # with the headings
    assert words(parts[0]) <= 13


def test_the_description_is_planned_as_a_tree():
    _, prompts, run = patented("patent:words=2000,part_words=60,sections=2")
    assert [call.role for call in run.ledger.calls].count("plan") == 3  # the whole, and each of its two sections
    lines = [prompt.partition("Now comes ")[2].partition("\n")[0] for prompt in prompts if "Now comes Description" in prompt]
    leaves = list(dict.fromkeys(lines))
    assert leaves == [
        f"Description: {section}: {leaf}"
        for section in ("Point 1; Point 2", "Point 3; Point 4; Point 5")
        for leaf in ("Point 1; Point 2", "Point 3; Point 4; Point 5")
    ]


def test_objections_lead_to_a_revision_which_takes_the_place_of_the_text():
    parts, _, run = patented("patent:words=300,part_words=60", Examiner)
    roles = [call.role for call in run.ledger.calls]
    assert roles.count("revision") == roles.count("review") == roles.count("text") > 5
    assert "\n\n".join(parts).count("revised") == roles.count("text")
    drafts = [call.text for call in run.ledger.calls if call.role == "text"]
    assert not any(draft in "\n\n".join(parts) for draft in drafts)


@pytest.mark.parametrize("reviews", [0, 1, 3])
def test_a_text_is_sent_back_as_often_as_the_settings_say(reviews):
    _, _, run = patented(f"patent:words=300,part_words=60,reviews={reviews}", content=False)
    roles = [call.role for call in run.ledger.calls]
    assert roles.count("revision") == roles.count("review") == reviews * roles.count("text")


def test_a_passage_is_written_with_what_the_draft_says_on_it():
    class Planner(ScriptedWriter):
        def written(self, prompt):
            return (
                "\n ".join(f"{at}. the {topic}" for at, topic in enumerate(TOPICS)) if prompt.endswith("Plan:") else super().written(prompt)
            )

    _, prompts, run = patented("patent:words=620,part_words=60,sections=6", Planner, window=1200)
    for topic in TOPICS:
        passages = [prompt for prompt in prompts if f"Now comes Description: the {topic}" in prompt]
        assert passages
        assert all(prompt.partition("Now comes")[0].count(f"the {topic} plate") == 12 for prompt in passages)  # all that there is on it
    assert run.ledger.coverage == 1.0


def test_passages_fill_the_room_and_have_the_places_that_are_shown():
    documents = [DRAFT, Document(name="second", text="  \n Another spring, of brass, lies in the drawer.")]
    for room in (3, 17, 60, 1000):
        found = Recall(passages_of(documents, 20, words), words).best("spring", room)
        assert words(found.text) == min(room, sum(words(document.text) for document in documents))
        assert found.text.split() == [word for span in found.spans for word in documents[span.document].text[span.start : span.end].split()]
        assert "spring" in documents[found.spans[0].document].text[found.spans[0].start :][:60]  # the best first
    assert Recall(passages_of(documents, 20, words), words).best("spring", 0) is None


def test_only_the_last_passage_is_cut():
    passages = [
        TextChunk(text=text, spans=(Span(0, at, at + len(text)),), tokens=3) for at, text in ((0, "one two three"), (20, "four five six"))
    ]
    found = filled(passages, 5, words)
    assert found.text == "one two three\n\nfour five"
    assert found.spans == (Span(0, 0, 13), Span(0, 20, 29))


def test_what_was_written_long_before_is_found_again():
    _, prompts, _ = patented("patent:words=1500,part_words=60", window=600)
    assert "Passages from earlier in the text:" in prompts[-2]


def test_a_patent_needs_a_draft():
    with pytest.raises(InputError, match="patent works from documents; give at least one"):
        composition(ScriptedWriter(window=600), TASK, workflow="patent")

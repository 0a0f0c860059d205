import pytest

from longreach.testing.scripted import ScriptedWriter
from longreach.workflows.output_length import words_in
from longreach.workflows.run import composition
from longreach.workflows.spans import Document

TASK = "Write a novel about a ship."


class Novelist(ScriptedWriter):
    """Outlines say where they stand, and characters are counted."""

    def written(self, prompt):
        if prompt.endswith("Plan:"):
            within = prompt.rpartition("Split now: ")[2].partition(":")[0]
            return f"1. first of {within}\n 2. second of {within}"
        if prompt.endswith("Notes:") and "list of its characters" in prompt:
            return f"Ada, seen {1 + int((prompt.partition('Ada, seen ')[2] or '0')[0])} times"
        if prompt.endswith("Notes:"):
            return "the structure of " + prompt.partition("\n\n")[2].partition(" ")[0]
        return super().written(prompt)


def told(workflow, *, window=2000, documents=(), task=TASK):
    model = Novelist(window=window)
    run = composition(model, task, workflow=workflow, documents=documents)
    parts = list(run.parts())
    return parts, [str(request.messages[-1]["content"]) for request in model.requests], run


def test_the_tree_is_expanded_depth_first():
    _, _, run = told("novel:words=400,part_words=100,branches=2")
    chapter = ["plan", "text", "notes", "text", "notes"]
    assert [call.role for call in run.ledger.calls] == ["plan", *chapter, *chapter]


def test_a_section_is_written_with_what_is_above_it_and_before_it():
    parts, prompts, _ = told("novel:words=400,part_words=100,branches=2")
    last = next(prompt for prompt in reversed(prompts) if prompt.endswith("Text:"))
    assert "Outline:\npart 2: second of the whole novel\npart 2.2: second of part 2\n" in last
    assert "Now comes part 2.2: second of part 2\n" in last
    assert "Characters:\nAda, seen 3 times" in last
    assert parts[-2] in last
    assert "first of part" not in last


def test_the_tree_has_the_depth_of_the_settings():
    _, prompts, _ = told("novel:words=800,part_words=100,branches=2,depth=3")
    assert sum(prompt.endswith("Plan:") for prompt in prompts) == 1 + 2 + 4
    assert "part 2.2.2: second of part 2.2" in prompts[-1] or "part 2.2.2: second of part 2.2" in prompts[-2]


@pytest.mark.parametrize("window", [400, 3000])
def test_a_novel_is_as_long_as_is_asked(window):
    parts, _, run = told("novel", window=window, task="Write a novel of 5,000 words.")
    assert words_in("\n\n".join(parts)) == 5000
    assert len(run.ledger.calls) < run.estimate.calls


def test_the_structure_of_a_draft_is_extracted_and_shown():
    draft = Document(name="draft", text="\n\n".join(f"Chapter{number} " + "and so on. " * 60 for number in range(9)))
    _, prompts, run = told("novel:words=300,part_words=100", window=500, documents=[draft])
    roles = [call.role for call in run.ledger.calls]
    extracts = roles.count("extract")
    assert extracts > 3
    assert roles[:extracts] == ["extract"] * extracts
    assert roles[extracts] == "merge"
    assert run.ledger.coverage == 1.0
    assert all("Structure of the draft or the examples:\nthe structure of" in prompt for prompt in prompts if prompt.endswith("Text:"))
    cost, most = run.ledger.cost, run.estimate
    assert cost.calls <= most.calls
    assert cost.tokens <= most.tokens


def test_an_outline_that_says_too_little_is_filled_up():
    model = ScriptedWriter(window=2000, points=1)
    run = composition(model, TASK, workflow="novel:words=300,part_words=100,branches=3,depth=1")
    assert len(list(run.parts())) == 3
    assert f"Now comes part 2: what comes next in: {TASK}" in str(model.requests[3].messages[-1]["content"])

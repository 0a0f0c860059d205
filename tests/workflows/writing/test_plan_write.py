import pytest

from longreach.core.errors import InputError
from longreach.testing.scripted import ScriptedWriter
from longreach.workflows.output_length import longwriter_lengths, words_in
from longreach.workflows.run import composition

TASK = "Write a story of 10,000 words about a ship."


def written(task, *, window=400, workflow="plan_write", **writer):
    model = ScriptedWriter(window=window, **writer)
    run = composition(model, task, workflow=workflow)
    return "\n\n".join(run.parts()), model, run


def prompts(model):
    return [str(request.messages[-1]["content"]) for request in model.requests]


@pytest.mark.parametrize("window", [200, 4000])
@pytest.mark.parametrize("share", [1.0, 0.5, 4 / 3])
def test_ten_thousand_words_are_reached_through_any_window(window, share):
    text, _, _ = written(TASK, window=window, share=share)
    assert words_in(text) > 9900
    assert longwriter_lengths(10_000, words_in(text)) > 99


def test_a_writer_of_few_words_is_asked_to_go_on_as_often_as_the_settings_say():
    for retries in (0, 1, 3):
        _, _, run = written("a story", workflow=f"plan_write:words=400,part_words=40,retries={retries}", share=0.1)
        texts = [call for call in run.ledger.calls if call.role == "text"]
        assert len(texts) == 10 * (1 + retries)


def test_the_length_is_that_of_the_settings_the_task_or_a_thousand():
    for task, workflow, words in (
        ("a story", "plan_write", 1000),
        ("a story of 300 words", "plan_write", 300),
        ("a story of 300 words", "plan_write:words=200", 200),
    ):
        assert words_in(written(task, workflow=workflow)[0]) == words


def test_a_short_text_needs_no_plan():
    text, model, _ = written("a letter of 30 words")
    assert words_in(text) == 30
    assert len(model.requests) == 1


def test_every_passage_is_asked_for_with_the_plan_and_the_text_before_it():
    _, model, _ = written("a story", workflow="plan_write:words=200,part_words=40", window=4000)
    plan, *passages = prompts(model)
    assert plan.endswith("Plan:")
    assert all("1. Point 1\n2. Point 2\n3. Point 3" in prompt for prompt in passages)
    assert [int(prompt.partition("belongs to part ")[2][0]) for prompt in passages] == [1, 2, 3, 4, 5]
    assert "Nothing of the text is written yet." in passages[0]
    for before, prompt in zip(model.requests[1:], passages[1:], strict=False):
        assert model.written(str(before.messages[-1]["content"])) in prompt


def test_longer_points_of_the_plan_get_more_passages():
    _, model, _ = written("a story", workflow="plan_write:words=600,part_words=40", window=4000)
    parts = [prompt.partition("belongs to part ")[2][0] for prompt in prompts(model)[1:]]
    assert [parts.count(number) for number in "12345"] == [1, 2, 3, 4, 5]  # as the plan gives them 100 to 500 words


def test_a_plan_that_says_nothing_is_made_up():
    text, model, _ = written("a story of 200 words", points=0)
    assert words_in(text) == 200
    assert "1. Begin the text" in prompts(model)[1]


def test_a_text_that_was_cut_goes_on_in_the_same_line():
    class Cut(ScriptedWriter):
        def written(self, prompt):
            return super().written(prompt).removesuffix(".") if prompt.endswith("Text:") else super().written(prompt)

    run = composition(Cut(window=4000, share=0.5), "a story", workflow="plan_write:words=40,part_words=40")
    (part,) = run.parts()
    assert "\n" not in part
    assert len(part.split()) == 35  # 20 of 40, 10 of 20, 5 of 10


def test_a_model_that_writes_nothing_is_not_asked_the_same_again():
    class Mute(ScriptedWriter):
        def written(self, prompt):
            return "" if prompt.endswith("Text:") else super().written(prompt)

    model = Mute(window=400)
    run = composition(model, "a story", workflow="plan_write:words=100,part_words=20")
    assert list(run.parts()) == []
    assert len(model.requests) == 6


def test_a_window_without_room_is_refused():
    with pytest.raises(InputError, match="a window of 100 tokens leaves .* for a passage of the text; give a larger window"):
        composition(ScriptedWriter(window=100), TASK)

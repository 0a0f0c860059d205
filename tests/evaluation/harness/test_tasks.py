"""Tasks of longreach run in the harness, and ask there what they ask here."""

import json

import pytest

pytest.importorskip("lm_eval", reason="needs the extra lm-eval")

from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import longreach
from longreach.core.errors import InputError, SpecError
from longreach.evaluation.evaluate import evaluate as evaluated_here
from longreach.evaluation.harness.model import HarnessModel
from longreach.evaluation.harness.tasks import HarnessTask
from longreach.evaluation.tasks.base import NoRoom
from tests.evaluation.harness.made import model, tokens
from tests.evaluation.samples import real_text

NEEDLE, LENGTH = "needle:digits=3", 400


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text(real_text(), encoding="utf-8")
    return path


@pytest.fixture
def make(book):
    def made(asks=NEEDLE, length=LENGTH, chat=False, **settings):
        return HarnessTask(
            asks, **{"length": length, "tokenizer": tokens(chat=chat), "passages": 3, "text": book, "chat": chat, **settings}
        )

    return made


def run(lm, *tasks, **settings):
    return evaluate(lm, TaskManager(include_defaults=False).load(list(tasks)), bootstrap_iters=1, **settings)


@pytest.fixture
def lm():
    return HarnessModel(model(max_position_embeddings=512), tokens())


def test_the_harness_gives_the_marks_that_evaluate_gives(make, lm, book):
    found = run(lm, make(), make("next_element", text=None))
    text = book.read_text(encoding="utf-8")
    for asks, length, name in ((NEEDLE, LENGTH, f"{NEEDLE}_400"), ("next_element", LENGTH, "next_element_400")):
        rows = evaluated_here(lm.model, lm.tokenizer, tasks=asks, lengths=[length], passages=3, text=text).rows
        for metric in ("accuracy", "likelihood"):
            scores = [row.score for row in rows if row.settings["metric"] == metric]
            assert found["results"][name].get(f"{metric},none", None) == (pytest.approx(sum(scores) / len(scores)) if scores else None)
        written = [row.answer for row in rows if row.settings["metric"] == "accuracy"]
        said = [sample["filtered_resps"][0] for sample in found["samples"][name]]
        assert [one.startswith(other) for one, other in zip(said, written, strict=True)] == [True] * len(said)
    assert any("likelihood" in key for key in found["results"][f"{NEEDLE}_400"])


def test_texts_of_their_own_length_are_marked_as_evaluate_marks_them(make, lm):
    task = make("leval", length=700, text=None, passages=99, truncate="middle")
    found = run(lm, task)
    assert 1 < len({doc["passage"] for doc in task.test_docs()}) < 99
    wanted = evaluated_here(lm.model, lm.tokenizer, tasks=[task.asks], lengths=[700], passages=99, truncate="middle").rows
    of = {row.settings["metric"] for row in wanted}
    assert len(of) > 2
    for metric in of:
        scores = [row.score for row in wanted if row.settings["metric"] == metric]
        assert found["results"][task.task_name][f"{metric},none"] == pytest.approx(sum(scores) / len(scores))


def test_a_question_with_several_metrics_gets_them_all(make):
    task = make("leval:evaluated=judged", length=2000, text=None)
    doc = task.test_docs()[0]
    marks = task.process_results(doc, [doc["right"]])
    assert [name.rpartition("/")[2] for name in marks] == ["rouge_l", "rouge_1", "rouge_2"]
    assert set(marks.values()) == {1.0}
    assert marks.keys() <= task.aggregation().keys() == task.higher_is_better().keys()


def test_prompts_are_as_long_as_the_task_says(make, lm):
    task = make()
    found = run(lm, task)
    for sample in found["samples"][task.task_name]:
        prompt, written = sample["arguments"][0]
        assert LENGTH * 0.95 < len(lm.tok_encode(prompt)) + written["max_gen_toks"] <= LENGTH
        assert [settings[0] for settings in sample["arguments"][1:]] == [prompt] * (len(sample["arguments"]) - 1)
    assert found["versions"][task.task_name] == longreach.__version__
    assert found["configs"][task.task_name]["metadata"]["asks"] == NEEDLE
    assert found["higher_is_better"][task.task_name] == {"accuracy": True, "likelihood": True}
    json.dumps(found["samples"])


def test_a_right_answer_is_marked_right_and_a_wrong_one_wrong(make):
    task = make()
    for doc in task.test_docs():
        choices = [(0.0 if choice == doc["right"] else -1.0, False) for choice in doc["choices"]]
        assert task.process_results(doc, [f" {doc['right']}\nand so on", *choices]) == {"accuracy": 1.0, "likelihood": 1.0}
        wrong = [(-value, False) for value, _ in choices]
        assert task.process_results(doc, [" who knows", *wrong]) == {"accuracy": 0.0, "likelihood": 0.0}


def test_the_harness_own_models_run_them(make):
    lm, task = HFLM(pretrained=model(max_position_embeddings=512), tokenizer=tokens()), make()
    theirs, ours = run(lm, task), run(HarnessModel(lm.model, tokens()), task)
    metrics = [
        {sample["doc_id"]: (sample["accuracy"], sample["likelihood"]) for sample in each["samples"][task.task_name]}
        for each in (theirs, ours)
    ]
    assert metrics[0] == metrics[1]


def test_in_a_chat_template_lengths_count_it(make):
    lm = HarnessModel(model(max_position_embeddings=512), tokens(chat=True))
    task = make(chat=True)
    found = run(lm, task, apply_chat_template=True)
    for sample in found["samples"][task.task_name]:
        prompt, written = sample["arguments"][0]
        assert prompt.startswith("<s>user\n")
        assert "<s>assistant\n" in prompt
        assert LENGTH * 0.95 < len(lm.tok_encode(prompt)) + written["max_gen_toks"] <= LENGTH


@pytest.mark.parametrize(
    ("chat", "settings", "message"),
    [
        (True, {}, "set chat: false in the task"),
        (False, {"apply_chat_template": True}, "set chat: true in the task"),
        (False, {"system_instruction": "be brief"}, "leave it out"),
    ],
)
def test_prompts_that_would_have_another_length_are_refused(make, chat, settings, message):
    with pytest.raises(InputError, match=message):
        run(HarnessModel(model(), tokens(chat=True)), make(chat=chat), **settings)


def test_settings_of_the_harness_win(make, lm):
    task = make()
    task.set_config("generation_kwargs", {"max_gen_toks": 2, "until": ["e"]}, update=True)
    sample = run(lm, task)["samples"][task.task_name][0]
    assert sample["arguments"][0][1] == {"max_gen_toks": 2, "until": ["e"], "do_sample": False}


def test_a_yaml_file_names_one(tmp_path, lm, book):
    tokens().save_pretrained(tmp_path / "tiny")
    (tmp_path / "needle.yaml").write_text(
        f"task: found\nclass: !function longreach.evaluation.harness.tasks.HarnessTask\nasks: {NEEDLE}\nlength: {LENGTH}\n"
        f"tokenizer: {tmp_path}/tiny\npassages: 2\nseed: 7\ntext: {book}\n"
    )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = evaluate(lm, manager.load("found"), bootstrap_iters=1)
    assert found["n-samples"]["found"]["effective"] == 2
    assert found["configs"]["found"]["metadata"]["seed"] == 7


def test_what_a_yaml_file_says_in_vain_is_refused():
    config = {"task": "mine", "asks": NEEDLE, "length": "4k", "tokenizer": "tiny", "num_fewshot": 3}
    with pytest.raises(InputError, match="mine: num_fewshot has no effect"):
        HarnessTask(config=config)
    with pytest.raises(InputError, match="a task for the harness needs tokenizer"):
        HarnessTask(config={"task": "mine", "asks": NEEDLE, "length": "4k"})


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"asks": "needle,passkey"}, InputError, "one task at a time"),
        ({"length": "far"}, SpecError, "not a length"),
        ({"passages": 0}, InputError, "passages=0"),
        ({"asks": "next_element"}, InputError, "text has no effect on next_element"),
        ({"truncate": "left"}, InputError, "its passages fill the length"),
        ({"chat": True, "tokenizer": tokens()}, InputError, "no chat template"),
    ],
)
def test_what_does_not_fit_is_refused(make, settings, error, message):
    with pytest.raises(error, match=message):
        make(**settings)


def test_a_length_that_holds_no_passage_is_refused(make, lm):
    with pytest.raises(NoRoom, match="needs a length of"):
        run(lm, make(length=20))

"""The harness runs its tasks on our models and ours on its models, and finds what its own model class finds."""

import copy
import json

import pytest
import torch

lm_eval = pytest.importorskip("lm_eval")

from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.model import LM  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from longreach.core.errors import InputError  # noqa: E402
from longreach.engine.apply import apply  # noqa: E402
from longreach.evaluation.harness.model import HarnessModel  # noqa: E402
from longreach.evaluation.harness.tasks import HarnessDocuments, harness_tasks  # noqa: E402
from longreach.testing.models import tiny_learned, tiny_model  # noqa: E402
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer  # noqa: E402

NONE_OF_ITS_OWN = TaskManager(include_defaults=False)  # to look through all of them takes many seconds
SHORT = [("The grass", " is green"), ("The grass", " is blue. The sun"), ("", "There"), ("Here we go. ", "There and back"), ("a", " b")]


def asked(kind, *requests):
    return [Instance(request_type=kind, doc={}, arguments=arguments, idx=number) for number, arguments in enumerate(requests)]


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY, max_position_embeddings=2048)


@torch.no_grad()
def by_hand(model, of, text):
    ids = torch.tensor([of(text)["input_ids"]])
    return float(model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).sum())


@pytest.mark.parametrize("style", ["digits", "plain", "metaspace"])
def test_the_same_numbers_as_the_harness_own_model(model, style):
    of = copy.deepcopy(tokenizer(style))
    of.eos_token = "<unk>"  # theirs cannot write without one
    theirs, ours = HFLM(pretrained=model, tokenizer=of, batch_size=1), HarnessModel(model, of, chunk_size=5)
    wanted = theirs.loglikelihood(asked("loglikelihood", *SHORT), disable_tqdm=True)
    found = ours.loglikelihood(asked("loglikelihood", *SHORT))
    assert [one for one, _ in found] == pytest.approx([one for one, _ in wanted], abs=1e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
    texts = [(real_text()[:300],), ("one",)]
    wanted = theirs.loglikelihood_rolling(asked("loglikelihood_rolling", *texts), disable_tqdm=True)
    if style != "plain":  # there it reads the first token of the tokenizer twice, and counts the second
        wanted = [by_hand(model, of, text) for (text,) in texts]
    assert ours.loglikelihood_rolling(asked("loglikelihood_rolling", *texts)) == pytest.approx(wanted, abs=1e-2)
    contexts = [(text, {"until": ["\n", "e"], "max_gen_toks": 12, "do_sample": False}) for text, _ in SHORT if text]
    assert ours.generate_until(asked("generate_until", *contexts)) == theirs.generate_until(
        asked("generate_until", *contexts), disable_tqdm=True
    )


def test_under_a_method_nothing_is_cut(model):
    short = tiny_model(vocab_size=VOCABULARY, max_position_embeddings=64)
    ours = HarnessModel(short, tokenizer(), chunk_size=32)
    text = real_text()[:1500]
    pairs = [(text, " one"), (text, " two three")]
    plain = ours.loglikelihood(asked("loglikelihood", *pairs))
    with apply(short, "yarn:factor=16"):
        found = ours.loglikelihood(asked("loglikelihood", *pairs))
        alone = [ours.loglikelihood(asked("loglikelihood", pair))[0] for pair in pairs]
        ids = torch.tensor([ours._split(*pairs[1])[0] + ours._split(*pairs[1])[1]])
        with torch.no_grad():
            logits = short(ids).logits[0].log_softmax(-1)
    rest = len(ours._split(*pairs[1])[1])
    by_hand = float(logits[-rest - 1 : -1].gather(1, ids[0, -rest:, None]).sum())
    assert ids.shape[1] > 500
    assert found == [(pytest.approx(one, abs=1e-4), greedy) for one, greedy in alone]
    assert found[1][0] == pytest.approx(by_hand, abs=1e-3)
    assert abs(found[1][0] - plain[1][0]) > 0.01


def test_a_chat_template_is_written_and_its_special_tokens_are_special(model):
    of = copy.deepcopy(tokenizer())
    said = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    of.chat_template = "{{ bos_token }}" + said + "{% if add_generation_prompt %}[assistant]{% endif %}"
    ours = HarnessModel(model, of)
    prompt = ours.apply_chat_template([{"role": "user", "content": "What is green?"}])
    assert prompt == "<s>[user] What is green?\n[assistant]"
    assert ours.chat_template(True) == of.chat_template
    ((found, _),) = ours.loglikelihood(asked("loglikelihood", (prompt, " grass")))
    with torch.no_grad():
        before, whole = (of(text, add_special_tokens=False)["input_ids"] for text in (prompt, f"{prompt} grass"))
        logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    assert whole[0] == of.bos_token_id
    assert whole[1] != of.bos_token_id
    assert found == pytest.approx(sum(float(logits[place - 1, whole[place]]) for place in range(len(before), len(whole))), abs=1e-3)


def test_what_cannot_be_asked_is_told(model):
    with pytest.raises(InputError, match="the task samples"):
        HarnessModel(model, tokenizer()).generate_until(asked("generate_until", ("a", {"do_sample": True, "temperature": 0.7})))
    with pytest.raises(InputError, match="cannot read beyond 128"):
        HarnessModel(tiny_learned("gpt2", vocab_size=VOCABULARY), tokenizer()).loglikelihood(
            asked("loglikelihood", (real_text()[:2000], " a"))
        )
    with pytest.raises(InputError, match="training mode"):
        HarnessModel(tiny_model(vocab_size=VOCABULARY).train(), tokenizer())


def test_a_task_of_the_harness(model):
    rows = [{"question": f"{number} plus 1", "choices": [str(number + 1), str(number)], "answer": 0} for number in range(4)]
    task = ConfigurableTask(
        config={
            "task": "adding", "custom_dataset": lambda **_: {"test": HarnessDocuments(rows)}, "test_split": "test",
            "output_type": "multiple_choice", "doc_to_text": "{{question}} is", "doc_to_choice": "choices", "doc_to_target": "answer",
        }
    )  # fmt: skip
    ours, theirs = (
        simple_evaluate(model=lm, tasks=[task], bootstrap_iters=0, task_manager=NONE_OF_ITS_OWN)["results"]["adding"]
        for lm in (HarnessModel(model, tokenizer("plain")), HFLM(pretrained=model, tokenizer=tokenizer("plain"), batch_size=1))
    )
    assert ours["acc,none"] == theirs["acc,none"]


class Knower(LM):
    """Answers as it is told."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.asked = answer, []

    def generate_until(self, requests):
        self.asked += [request.args for request in requests]
        return [self.answer(request) for request in requests]

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def test_tasks_of_ours():
    tasks = harness_tasks("passkey,needle:digits=3,leval", lengths=(4000,), passages=3, text=real_text())
    knows, knows_not = (
        simple_evaluate(model=Knower(answer), tasks=tasks, bootstrap_iters=0, task_manager=NONE_OF_ITS_OWN)
        for answer in (lambda one: f" {one.doc['target']}", lambda one: "")
    )
    assert knows["results"]["longreach_passkey_4000"]["accuracy,none"] == 1.0
    assert knows["results"]["longreach_needle:digits=3_4000"]["accuracy,none"] == 1.0
    assert knows_not["results"]["longreach_passkey_4000"]["accuracy,none"] == 0.0
    of_leval = {
        name: value for name, value in knows["results"]["longreach_leval_4000"].items() if name.endswith(",none") and "stderr" not in name
    }
    assert of_leval
    assert set(of_leval.values()) == {1.0}
    json.dumps(knows["results"])


def test_our_tasks_on_our_models(model):
    tasks = harness_tasks("passkey", lengths="400", tokenizer=tokenizer(), passages=2)
    with apply(model, "yarn:factor=4"):
        found = simple_evaluate(model=HarnessModel(model, tokenizer()), tasks=tasks, bootstrap_iters=0, task_manager=NONE_OF_ITS_OWN)
    assert 0.0 <= found["results"]["longreach_passkey_400"]["accuracy,none"] <= 1.0
    assert len(found["samples"]["longreach_passkey_400"]) == 2

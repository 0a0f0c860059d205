from statistics import fmean

import pytest

from longreach.core import registry
from longreach.core.method import Claim
from longreach.evaluation.claims import base
from longreach.evaluation.claims.base import ClaimBench, LeftOut, Metric, difference
from longreach.evaluation.evidence import Subject
from longreach.testing.models import tiny_learned, tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer


def bench(model=None, *, to=256):
    model = model or tiny_model(vocab_size=VOCABULARY, num_hidden_layers=1)
    return ClaimBench(Subject(model, tokenizer(), name="tiny", to=to, text=real_text(), windows=2), real_text(), {})


def take(metric, name, on):
    return registry.module(metric, "metric").METRIC.take(name, on)


@pytest.mark.parametrize("name", registry.names("metric"))
def test_a_metric_says_what_it_means(name):
    module = registry.module(name, "metric")
    assert isinstance(module.METRIC, Metric)
    assert module.METRIC.meaning
    assert module.__doc__


def test_what_a_model_does_not_take_is_left_out_with_the_reason():
    learned = bench(tiny_learned(vocab_size=VOCABULARY, num_hidden_layers=1))
    with pytest.raises(LeftOut, match="it has no rotary position embedding"):
        take("rise", "yarn", learned)
    with pytest.raises(LeftOut, match="it suggests nothing for these lengths"):
        take("rise", "log_n", bench())


def test_the_flattest_setting_is_taken():
    on = bench()
    specs = on.settings("self_extend")
    assert len(specs) > 1
    rises = {spec: on.rise(spec).mean for spec in specs}
    found = take("rise", "self_extend", on)
    assert (found.spec, found.interval.mean) == min(rises.items(), key=lambda item: item[1])
    assert found.of == "2 texts"


def test_a_model_that_does_not_recall_says_nothing_of_retrieval(monkeypatch):
    on = bench()
    with pytest.raises(LeftOut, match=r"the plain model finds 0\.\d\d of the needles inside its window"):
        take("retrieval", "yarn", on)
    monkeypatch.setattr(base, "RECALLS", 0.0)
    assert take("retrieval", "yarn", on).spec == "yarn:factor=2"


def test_a_claim_about_fewer_windows_is_measured_there():
    on = bench(to=512)
    near = on.for_claim(Claim(text="to 2 windows", metric="rise", times=2))
    assert (on.to, near.to, near.settings("yarn")) == (512, 256, ["yarn:factor=2"])
    assert near.rises("yarn:factor=2") == on.subject.rises("yarn:factor=2", end=256) != on.rises("yarn:factor=2")
    assert len(near.answers("yarn:factor=2", 1)) == len(on.subject.answers("yarn:factor=2", 256, 1)) > 0
    assert on.for_claim(Claim(text="as far as is measured", metric="rise")) is on
    with pytest.raises(LeftOut, match="it is about 2048 tokens, and 512 are measured"):
        on.for_claim(Claim(text="far", metric="rise", times=16))


def test_a_method_is_compared_with_the_better_one_of_others():
    on = bench()
    rises = {name: on.rises(on.flattest(name)) for name in ("ntk_by_parts", "linear", "ntk")}
    found = take("over_linear_and_ntk", "ntk_by_parts", on)
    better = min(("linear", "ntk"), key=lambda name: fmean(rises[name].values()))
    assert found.spec == on.flattest("ntk_by_parts")
    assert found.interval.mean == pytest.approx(fmean(rises["ntk_by_parts"].values()) - fmean(rises[better].values()))


def test_retrieval_is_measured_by_what_is_found_inside(monkeypatch):
    on = bench()
    monkeypatch.setattr(base, "RECALLS", 0.0)
    answers = {"inside": {str(n): n < 16 for n in range(20)}, "beyond": {str(n): n < 12 for n in range(20)}}
    monkeypatch.setattr(on.subject, "answers", lambda spec, length, samples: answers["inside" if length == 128 else "beyond"])
    found = take("retrieval", "yarn", on)
    assert found.interval.mean == pytest.approx(12 / 16)
    assert found.of == "20 questions"


def test_stacks_are_compared_with_what_they_stand_on():
    on = bench()
    vars(on)["ranked"] = ["self_extend:neighbours=64,group=4", "yarn:factor=2"]  # as were measured
    assert on.stacked("resonance") == ("yarn:factor=2+resonance", "yarn:factor=2")
    found = take("rise_gain", "resonance", on)
    alone, both = (on.rise(spec).mean for spec in ("yarn:factor=2", "yarn:factor=2+resonance"))
    assert found.interval.mean == pytest.approx(alone - both)
    vars(on)["ranked"] = []
    with pytest.raises(LeftOut, match="no method that it improves works on this model"):
        take("rise_gain", "resonance", on)


def test_differences_are_paired_by_text():
    found = difference("yarn", {"a": 1.0, "b": 3.0}, {"b": 2.0, "a": 0.5, "c": 9.0})
    assert (found.spec, found.interval.mean, found.of) == ("yarn", 0.75, "2 texts")

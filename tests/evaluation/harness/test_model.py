"""A model of longreach answers the harness's requests as the harness's own models do, and at any length."""

import warnings

import pytest

pytest.importorskip("lm_eval", reason="needs the extra lm-eval")

import torch
from lm_eval.models.huggingface import HFLM

from longreach.core.errors import InputError
from longreach.engine.apply import apply
from longreach.evaluation.harness.model import HarnessModel
from longreach.testing.models import tiny_encoder_decoder, tiny_learned
from tests.evaluation.harness.made import TEXT, model, requests, tokens
from tests.evaluation.samples import VOCABULARY

PAIRS = (
    (TEXT[:150], " a"),
    (TEXT[:150], " another word"),
    (TEXT[:150], "\n\ndef f(x):"),
    (TEXT[:200], " a"),
    (TEXT[:100] + "  ", "spaces before"),
    ("", "no context"),
    ("a", " b"),
    ("", "a"),
    ("<s>a", " BOS is written"),
    ("7", "4 12"),
)
STYLES = ("digits", "plain", "groups", "metaspace")


def ours(style="digits", **options):
    return HarnessModel(model(), tokens(style), chunk_size=40, **options)


def theirs(style="digits", **options):
    return HFLM(pretrained=model(), tokenizer=tokens(style), **options)


def naive(text, context, continuation):
    """The definition, in one forward pass over all ids."""
    ids = torch.tensor([[*context, *continuation]])
    with torch.no_grad():
        each = model()(ids[:, :-1]).logits[0, -len(continuation) :].double().log_softmax(-1)
    return float(each[range(len(continuation)), list(continuation)].sum()), each.argmax(-1).tolist() == list(continuation)


@pytest.mark.parametrize("style", STYLES)
def test_log_likelihoods_are_those_of_the_harness(style):
    asked = requests("loglikelihood", *PAIRS)
    for (one, greedy), (other, greedy_too) in zip(ours(style).loglikelihood(asked), theirs(style).loglikelihood(asked), strict=True):
        assert one == pytest.approx(other, abs=1e-4)
        assert greedy == greedy_too


def test_a_context_is_read_once_for_all_its_continuations():
    lm, passes = ours(), []
    hook = lm.model.register_forward_pre_hook(lambda module, args: passes.append(args[0].shape[1]))
    pairs = [(TEXT[:200], " a"), (TEXT[:200], " another word"), (TEXT[:200] + " more", " a")]
    ids = [lm._encode_pair(*pair) for pair in pairs]
    lm.loglikelihood(requests("loglikelihood", *pairs))
    hook.remove()
    tried, *passes = passes  # whether caches can be put back
    assert tried < 10
    assert sum(passes) == len(ids[2][0]) + sum(len(continuation) - 1 for _, continuation in ids)


def test_what_is_greedy_is_said_to_be():
    lm, contexts = ours(), [TEXT[start : start + 60] for start in range(0, 600, 60)]
    written = lm.generate_until(requests("generate_until", *((context, {"max_gen_toks": 1, "until": []}) for context in contexts)))
    pairs = [(context, text + more) for context, text in zip(contexts, written, strict=True) if text for more in ("", " and more")]
    asked = requests("loglikelihood", *pairs)
    greedy = [each for _, each in lm.loglikelihood(asked)]
    assert greedy == [each for _, each in theirs().loglikelihood(asked)]
    assert greedy[::2].count(True) > 3
    assert not any(greedy[1::2])


@pytest.mark.parametrize("spec", ["yarn:factor=4", "self_extend:neighbours=32,group=8", "sinks:window_size=100"])
def test_under_a_method_log_likelihoods_are_those_of_whole_texts(spec):
    lm = ours()
    pairs = [(TEXT[:900], " a"), (TEXT[:900], TEXT[900:1100]), (TEXT[:700], TEXT[700:720]), ("", "no context")]
    with apply(model(), spec, warn=False):
        found = lm.loglikelihood(requests("loglikelihood", *pairs))
        for (context, continuation), (value, greedy) in zip(pairs, found, strict=True):
            if context:
                ids = lm._encode_pair(context, continuation)
            else:
                ids = [lm.prefix_token_id], lm.tok_encode(continuation, add_special_tokens=False)
            assert (value, greedy) == (pytest.approx(naive(context, *ids)[0], abs=1e-3), naive(context, *ids)[1])


@pytest.mark.parametrize("style", ["digits", "plain"])
@pytest.mark.parametrize("text", [TEXT[:150], TEXT[:1500], "a", ""])
def test_rolling_is_that_of_the_harness(style, text):
    asked = requests("loglikelihood_rolling", (text,))
    assert ours(style).loglikelihood_rolling(asked) == pytest.approx(theirs(style).loglikelihood_rolling(asked), abs=1e-3)


@pytest.mark.parametrize(
    ("spec", "windows"), [("yarn:factor=4", 512), ("self_extend:neighbours=32,group=8", 800), ("sinks:window_size=100", None)]
)
def test_rolling_goes_as_far_as_the_method_reaches(spec, windows):
    lm, text = ours(), TEXT[:2500]
    ids = lm.tok_encode(text)
    assert len(ids) > 800
    with apply(model(), spec, warn=False):
        assert lm.max_length == windows or (windows is None and lm.max_length > 10**9)
        (found,) = lm.loglikelihood_rolling(requests("loglikelihood_rolling", (text,)))
        wanted, at = 0.0, 0
        while at < len(ids):
            length = min(windows or len(ids), len(ids))
            end = min(at + length, len(ids))
            before = [lm.prefix_token_id, *ids][max(0, end - length) : at + 1]
            wanted += naive(text, before, ids[at:end])[0]
            at = end
    assert found == pytest.approx(wanted, abs=1e-2)


def test_a_cut_prompt_is_told_of():
    with apply(model(), "snapkv:budget=64", warn=False), pytest.warns(UserWarning, match="those of the model itself"):
        ours().loglikelihood_rolling(requests("loglikelihood_rolling", (TEXT[:100],)))


@pytest.mark.parametrize("style", STYLES)
def test_answers_are_those_of_the_harness(style):
    settings = (
        {"until": ["\n"], "max_gen_toks": 30},
        {"until": ["e", " the"], "do_sample": False, "temperature": 0.0, "top_p": 0.9},
        {"until": [], "max_gen_toks": 12},
        {"until": "\n\n", "max_new_tokens": 20},
    )
    asked = requests("generate_until", *((context, each) for context in (TEXT[:150], TEXT[200:290], "a") for each in settings))
    written = ours(style, max_gen_toks=40).generate_until(asked)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of how the harness calls transformers
        short = type("Short", (HFLM,), {"max_gen_toks": 40})
        assert written == short(pretrained=model(), tokenizer=tokens(style)).generate_until(asked)
    assert any(written)


def test_under_a_method_answers_are_those_of_whole_texts():
    lm = ours()
    with apply(model(), "yarn:factor=4", warn=False):
        context, more = TEXT[:900], TEXT[:800]
        asked = requests("generate_until", (context, {"until": [], "max_gen_toks": 8}), (more, {"until": [], "max_gen_toks": 3}))
        written = lm.generate_until(asked)
        for text, most, found in ((context, 8, written[0]), (more, 3, written[1])):
            ids = lm.tok_encode(text)
            start = len(ids)
            for _ in range(most):
                with torch.no_grad():
                    ids.append(int(model()(torch.tensor([ids])).logits[0, -1].argmax()))
            assert found == lm.tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_an_empty_context_is_answered_after_the_prefix():
    lm = ours("plain")
    assert lm.tok_encode("") == []
    settings = {"until": [], "max_gen_toks": 5}
    assert lm.generate_until(requests("generate_until", ("", settings))) == lm.generate_until(requests("generate_until", ("<s>", settings)))


def test_results_keep_the_order_of_requests():
    lm, texts = ours(), [TEXT[start : start + 90] for start in (300, 0, 200, 100)]
    settings = {"until": [], "max_gen_toks": 4}
    together = lm.generate_until(requests("generate_until", *((text, settings) for text in texts)))
    assert together == [lm.generate_until(requests("generate_until", (text, settings)))[0] for text in texts]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_sample": True, "temperature": 0.7}, "set do_sample=False"),
        ({"temperature": 0.7}, "written greedily"),
        ({"num_beams": 4}, "num_beams=4"),
        ({"repetition_penalty": 1.2}, "repetition_penalty has no effect"),
    ],
)
def test_only_greedy_answers_are_written(settings, message):
    with pytest.raises(InputError, match=message):
        ours().generate_until(requests("generate_until", ("a", {"until": ["\n"], **settings})))


@pytest.mark.parametrize(("context", "continuation"), [("a", ""), ("", "")])
def test_an_empty_continuation_is_refused(context, continuation):
    with pytest.raises(InputError, match="empty continuation"):
        ours().loglikelihood(requests("loglikelihood", (context, continuation)))


def test_a_continuation_that_the_tokenizer_takes_into_the_context_is_refused():
    with pytest.raises(InputError, match="writes 'b' into the token before it"):
        ours("metaspace").loglikelihood(requests("loglikelihood", ("a", "b")))


def test_beyond_the_window_a_text_is_read_whole_and_told_of():
    lm = ours()
    context, continuation = lm._encode_pair(TEXT[:900], " a")
    with pytest.warns(UserWarning, match=r"1 of 2 texts are longer than the 128 tokens that the model reaches \(the longest: "):
        (value, _), _ = lm.loglikelihood(requests("loglikelihood", (TEXT[:900], " a"), ("a", "b")))
    assert value == pytest.approx(naive("", context, continuation)[0], abs=1e-3)


def test_what_cannot_be_read_is_an_error():
    learned = tiny_learned("gpt2", vocab_size=VOCABULARY)
    lm = HarnessModel(learned, tokens())
    assert lm.max_length == 128
    with pytest.raises(InputError, match="cannot read beyond 128 tokens"):
        lm.loglikelihood(requests("loglikelihood", (TEXT[:900], " a")))
    with pytest.raises(InputError, match="a request needs 3.* tokens"):
        lm.generate_until(requests("generate_until", (TEXT[:200], {"until": []})))
    asked = requests("loglikelihood_rolling", (TEXT[:1500],))  # in windows
    assert lm.loglikelihood_rolling(asked) == pytest.approx(HFLM(learned, tokenizer=tokens()).loglikelihood_rolling(asked), abs=1e-3)


def test_chats_are_written_by_the_template():
    lm = HarnessModel(model(), tokens(chat=True))
    said = [{"role": "user", "content": "hello"}]
    assert lm.apply_chat_template(said) == "<s>user\nhello\n<s>assistant\n"
    assert lm.chat_template(True) == tokens(chat=True).chat_template
    begun = [*said, {"role": "assistant", "content": "well"}]
    assert lm.apply_chat_template(begun, add_generation_prompt=False) == "<s>user\nhello\n<s>assistant\nwell"
    assert lm.tok_encode("<s>user").count(0) == 1
    with pytest.raises(InputError, match="no chat template"):
        ours().apply_chat_template(said)


def test_a_template_that_refuses_is_told_of():
    made = tokens("groups", chat=True)
    made.chat_template = "{{ raise_exception('no system message') }}"
    with pytest.raises(InputError, match="refuses a conversation of system: no system message"):
        HarnessModel(model(), made).apply_chat_template([{"role": "system", "content": "be brief"}])


def test_other_models_are_refused():
    with pytest.raises(InputError, match="encoder-decoder"):
        HarnessModel(tiny_encoder_decoder(), tokens())
    with pytest.raises(InputError, match="max_gen_toks=0"):
        ours(max_gen_toks=0)

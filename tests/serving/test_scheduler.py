import math
from dataclasses import replace

import pytest
import torch

from longreach.core.errors import InputError
from longreach.decoding.generation import tokens
from longreach.decoding.sampling import Sampling
from longreach.engine.cache_argument import cache_of
from longreach.serving.batches import can_stand_side_by_side
from longreach.serving.job import ChoiceEnded, PieceWritten, ServerBusyError, ServerClosingError, ServerFullError, ThinkingBudget
from longreach.serving.profiles import Profiles
from longreach.testing.models import random_ids
from tests.conversation.talks import talker
from tests.serving.served import job, run, scheduler

LENGTHS = (5, 9, 30, 31, 60, 17)


@pytest.fixture(scope="module")
def loaded():
    return talker()


@pytest.fixture(scope="module")
def profile(loaded):
    return Profiles(*loaded).all[0]


def prompt(length, seed=0):
    return random_ids(1, length, seed=seed)[0].tolist()


def alone(profile, tokenizer, ids, most, **more):
    """The text that the model writes with nobody beside it."""
    return tokenizer.decode(list(tokens(profile.model, torch.tensor([ids]), max_new_tokens=most, **more)), skip_special_tokens=True)


# Layers with sliding windows of 8 tokens among them.
FAMILIES = [("gpt_oss", torch.float32), ("falcon", torch.float32)]  # experts of the first compute in no other precision
FAMILIES += [(name, dtype) for name in ("llama", "llama_longrope", "gemma3") for dtype in (torch.float32, torch.float64)]


@pytest.mark.parametrize(("family", "dtype"), FAMILIES)
def test_many_at_a_time_write_what_each_writes_alone(family, dtype):
    loaded = talker(family)
    loaded.model.to(dtype)
    (profile,) = Profiles(*loaded).all
    scheduled = scheduler(loaded, profiles=[profile])
    asked = [job(profile, prompt(length, seed), most=8 + seed) for seed, length in enumerate(LENGTHS)]  # rows leave one by one
    for each, _ in asked:
        scheduled.submit(each)
    run(scheduled)
    for each, told in asked:
        assert told.text() == alone(profile, loaded.tokenizer, list(each.ids), each.most)
        assert told.reasons == ["length"]


SPECS = ["yarn:factor=4", "self_extend:neighbours=16,group=4", "sinks:window_size=40", "snapkv:budget=24,window_size=8", "h2o:budget=30"]


@pytest.mark.parametrize("spec", SPECS)
def test_methods_write_what_they_write_alone_and_reuse_changes_nothing(loaded, spec):
    profiles = Profiles(*loaded, [spec])
    profile = next(each for each in profiles.all if each.method)
    scheduled = scheduler(loaded, profiles=[profile], reuse_bytes=1 << 24)
    said = prompt(40)
    for turn in range(3):
        asked = [job(profile, said, most=5), job(profile, prompt(25, seed=turn + 1), most=9)]
        for each, _ in asked:
            scheduled.submit(each)
        run(scheduled)
        for each, told in asked:
            assert told.text() == alone(profile, loaded.tokenizer, list(each.ids), each.most)
        assert (asked[0][1].reused > 0) == (turn > 0 and profile.reuses)
        said = [*said, *prompt(13, seed=90 + turn)]
    profiles.close()


SIDE_BY_SIDE = [(family, "") for family in ("llama", "gemma3", "gpt_oss", "mistral")]
SIDE_BY_SIDE += [("llama", spec) for spec in ("yarn:factor=4", "self_extend:neighbours=16,group=4", "sinks:window_size=40")]


@pytest.mark.parametrize(("family", "spec"), SIDE_BY_SIDE)
def test_rows_stand_side_by_side_where_caches_are_keys_and_values(family, spec):
    loaded = talker(family)
    profiles = Profiles(*loaded, [spec] if spec else [])
    profile = next(each for each in profiles.all if each.method == spec)
    scheduled = scheduler(loaded, profiles=[profile])
    forwards = []
    handle = profile.model.register_forward_pre_hook(lambda module, args: forwards.append(tuple(args[0].shape)))
    for seed in range(4):
        scheduled.submit(job(profile, prompt(4, seed), most=8)[0])
    run(scheduled)
    handle.remove()
    profiles.close()
    assert forwards.count((4, 1)) == 7  # the first tokens come from the prompts
    assert len(forwards) == 4 + 7


def test_windows_that_are_not_of_slots_are_written_in_turn():
    profiles = Profiles(*talker("mistral")).all
    assert can_stand_side_by_side(profiles[0])
    profiles[0].model.config.attention_chunk_size = 8  # chunks begin at multiples of it, which padding would move
    assert not can_stand_side_by_side(profiles[0])


def test_a_row_far_longer_than_others_stands_alone(loaded, profile):
    scheduled = scheduler(loaded, profiles=[profile], chunk_size=256)
    shapes = []
    handle = profile.model.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    for length in (4, 5, 200):
        scheduled.submit(job(profile, prompt(length), most=4)[0])
    run(scheduled)
    handle.remove()
    assert (2, 1) in shapes
    assert (3, 1) not in shapes


def test_a_short_request_is_not_kept_waiting_by_a_long_prompt():
    loaded = talker(max_position_embeddings=1 << 16)
    (profile,) = Profiles(*loaded).all
    scheduled = scheduler(loaded, profiles=[profile], chunk_size=64)
    long, long_told = job(profile, prompt(32_000), most=4)
    scheduled.submit(long)
    scheduled.step()
    short, told = job(profile, prompt(20), most=10)
    scheduled.submit(short)
    for _ in range(10):  # one for the prompt and its first token, and one for each other token
        scheduled.step()
    assert told.reasons == ["length"]
    assert not long_told.of(PieceWritten)
    long.cancel()
    scheduled.step()
    assert scheduled.running == scheduled.tokens == 0


def test_a_long_prompt_is_read_in_spite_of_short_ones_that_never_end(loaded, profile):
    scheduled = scheduler(loaded, profiles=[profile], chunk_size=8)
    long, told = job(profile, prompt(100), most=2)
    scheduled.submit(long)
    for step in range(400):
        scheduled.submit(job(profile, prompt(8, seed=step), most=1)[0])
        scheduled.step()
        if told.of(ChoiceEnded):
            return
    raise AssertionError("the long prompt was never read")


def test_far_into_a_prompt_parts_get_smaller_and_answers_half_of_the_time():
    """On a clock by which a token takes a microsecond for each 10 tokens before it, when it is read, and 10 ms when it is written."""
    loaded = talker(max_position_embeddings=1 << 16)
    (profile,) = Profiles(*loaded).all
    clock, parts, seconds = [0.0], [], {"reading": 0.0, "writing": 0.0}

    def forward(module, args, kwargs, output):
        tokens, before = args[0].shape[1], int(cache_of(output).get_seq_length())
        took = tokens * before / 1e7 if tokens > 1 else 0.01
        seconds["reading" if tokens > 1 else "writing"] += took
        clock[0] += took
        if tokens > 1:
            parts.append(tokens)

    scheduled = scheduler(loaded, profiles=[profile], chunk_size=512, now=lambda: clock[0])
    long, _ = job(profile, prompt(8000), most=1)
    short, told = job(profile, prompt(16), most=200)
    scheduled.submit(short)
    scheduled.step()
    scheduled.submit(long)
    handle = profile.model.register_forward_hook(forward, with_kwargs=True)
    while not told.reasons:
        scheduled.step()
    handle.remove()
    assert parts[0] == 512
    assert parts[1:] == sorted(parts[1:], reverse=True)
    assert parts[-1] < 256
    assert 0.7 < seconds["reading"] / seconds["writing"] < 1.3
    long.cancel()
    scheduled.step()


def test_a_job_that_there_is_no_room_for_is_passed_but_not_for_ever(loaded, profile):
    scheduled = scheduler(loaded, profiles=[profile], most_tokens=100)
    scheduled.submit(job(profile, prompt(10), most=50)[0])
    scheduled.step()
    large, told = job(profile, prompt(40), most=20)
    scheduled.submit(large)
    ends = []
    for step in range(300):
        if not step % 6:
            small, said = job(profile, prompt(6, seed=step), most=10)
            ends.append(said)
            scheduled.submit(small)
        scheduled.step()
        assert scheduled.tokens <= 100
        if told.reasons:
            break
    assert told.reasons == ["length"]
    assert ends[0].reasons  # came later, and was done before


def test_what_no_waiting_makes_room_for_is_refused(loaded, profile):
    scheduled = scheduler(loaded, profiles=[profile], most_tokens=50, most_waiting=1)
    with pytest.raises(InputError, match="may need 58 tokens of cache, and this server has 50"):
        scheduled.submit(job(profile, prompt(9), most=20, choices=2)[0])
    scheduled.submit(job(profile, prompt(9))[0])
    with pytest.raises(ServerFullError, match="1 requests wait already"):
        scheduled.submit(job(profile, prompt(9))[0])


def test_cancelling_frees_what_was_held(loaded, profile):
    scheduled = scheduler(loaded, profiles=[profile])
    asked = [job(profile, prompt(20, seed), most=50) for seed in range(3)]
    for each, _ in asked:
        scheduled.submit(each)
    for _ in range(8):
        scheduled.step()
    kept = [scheduled._running[each][0] for each, _ in asked]
    asked[1][0].cancel()
    written = len(asked[1][1].events)
    scheduled.step()
    assert scheduled.running == 2
    assert kept[1].cache is None
    assert all(text is not kept[1] for batch in scheduled._batches for text in batch.texts)
    run(scheduled)
    assert len(asked[1][1].events) == written
    for number in (0, 2):
        each, told = asked[number]
        assert told.text() == alone(profile, loaded.tokenizer, list(each.ids), 50)


def test_choices_are_drawn_apart_and_a_seed_repeats_them(loaded, profile):
    sampling = Sampling(temperature=1.0, seed=3)
    texts = []
    for _ in range(2):
        scheduled = scheduler(loaded, profiles=[profile])
        each, told = job(profile, prompt(20), most=10, choices=3, sampling=sampling)
        scheduled.submit(each)
        run(scheduled)
        texts.append([told.text(choice) for choice in range(3)])
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 3
    for choice, text in enumerate(texts[0]):
        other = Sampling(temperature=1.0, seed=3 + choice)
        assert text == alone(profile, loaded.tokenizer, prompt(20), 10, sampling=other)


@pytest.mark.parametrize("spec", ["snapkv:budget=24,window_size=8", "self_extend:neighbours=16,group=4"])
def test_choices_under_methods_go_on_from_one_reading(loaded, spec):
    profiles = Profiles(*loaded, [spec])
    profile = next(each for each in profiles.all if each.method)
    scheduled = scheduler(loaded, profiles=[profile])
    each, told = job(profile, prompt(40), most=6, choices=3)
    scheduled.submit(each)
    run(scheduled)
    wanted = alone(profile, loaded.tokenizer, prompt(40), 6)
    assert [told.text(choice) for choice in range(3)] == [wanted] * 3
    assert scheduled.metrics._tokens["read"] == 40
    profiles.close()


def test_end_tokens_wait_for_the_least_number_of_tokens():
    loaded = talker()
    (profile,) = Profiles(*loaded).all
    (_, second) = tokens(profile.model, torch.tensor([prompt(20)]), max_new_tokens=2)
    profile.ends = {second}
    for least, written, reason in ((0, 1, "stop"), (4, 4, "length")):
        scheduled = scheduler(loaded, profiles=[profile])
        each, told = job(profile, prompt(20), most=4, least=least)
        scheduled.submit(each)
        run(scheduled)
        assert [(ended.written, ended.reason) for ended in told.of(ChoiceEnded)] == [(written, reason)]


@pytest.mark.parametrize(("budget", "begun", "ends"), [(0, True, [0]), (3, True, [3]), (3, False, []), (2, None, [4])])
def test_thoughts_end_where_their_budget_does(loaded, profile, budget, begun, ends):
    """`begun` None: the model begins them itself, by its second token."""
    free, told = job(profile, prompt(20), most=8, logprobs=0)
    bound = ThinkingBudget(tokens=budget, begin=None, end=263, begun=bool(begun))
    if begun is None:
        second = list(tokens(profile.model, torch.tensor([prompt(20)]), max_new_tokens=2))[1]
        bound = replace(bound, begin=second)
    each, bound_told = job(profile, prompt(20), most=8, logprobs=0, thinking=bound)
    scheduled = scheduler(loaded, profiles=[profile])
    scheduled.submit(free)
    scheduled.submit(each)
    run(scheduled)
    written = [[token.token for event in one.of(PieceWritten) for token in event.chosen] for one in (told, bound_told)]
    at = [number for number, token in enumerate(written[1]) if token == 263]
    assert at == ends
    first = at[0] if at else 8
    assert written[1][:first] == written[0][:first]


def test_log_probabilities_are_those_of_the_model(loaded, profile):
    scheduled = scheduler(loaded, profiles=[profile])
    each, told = job(profile, prompt(20), most=3, logprobs=4)
    scheduled.submit(each)
    run(scheduled)
    chosen = [token for event in told.of(PieceWritten) for token in event.chosen]
    ids = torch.tensor([prompt(20)])
    for token in chosen:
        with torch.no_grad():
            scores = profile.model(ids).logits[0, -1].log_softmax(-1)
        assert math.isclose(token.logprob, float(scores[token.token]), abs_tol=1e-4)
        assert [top for top, _ in token.top] == scores.topk(4).indices.tolist()
        ids = torch.cat([ids, torch.tensor([[token.token]])], 1)


def test_a_request_that_fails_leaves_the_others_alone(loaded, profile):
    scheduled = scheduler(loaded, profiles=[profile])
    asked = [job(profile, prompt(20, seed), most=8) for seed in range(3)]
    bad, failed = job(profile, [*prompt(9), 1 << 20], most=8)  # an id that no embedding has
    for each in (*[each for each, _ in asked], bad):
        scheduled.submit(each)
    run(scheduled)
    assert isinstance(failed.error, IndexError)
    for each, told in asked:
        assert told.text() == alone(profile, loaded.tokenizer, list(each.ids), 8)


def test_logits_that_are_not_finite_fail_the_request_by_name(loaded):
    broken = talker()
    (profile,) = Profiles(*broken).all
    with torch.no_grad():
        profile.model.get_input_embeddings().weight[7] = torch.nan
    scheduled = scheduler(broken, profiles=[profile])
    good, told = job(profile, [8, 9, 10], most=1)
    bad, failed = job(profile, [7, 7, 7], most=1)
    scheduled.submit(good)
    scheduled.submit(bad)
    run(scheduled)
    assert told.reasons == ["length"]
    assert "are not finite" in str(failed.error)


def test_late_requests_fail(loaded, profile):
    clock = [0.0]
    scheduled = scheduler(loaded, profiles=[profile], now=lambda: clock[0], most_running=1)
    one, one_told = job(profile, prompt(20), most=100, deadline=5.0)
    two, two_told = job(profile, prompt(30), most=100, deadline=5.0)
    scheduled.submit(one)
    scheduled.submit(two)
    scheduled.step()
    clock[0] = 6.0
    scheduled.step()
    assert isinstance(one_told.error, ServerBusyError)
    assert isinstance(two_told.error, ServerBusyError)
    assert scheduled.running == scheduled.waiting == 0


def test_closing_refuses_what_waits_and_stopping_ends_what_runs(loaded, profile):
    scheduled = scheduler(loaded, profiles=[profile], most_running=1)
    one, running = job(profile, prompt(20), most=100)
    two, waiting = job(profile, prompt(30), most=100)
    scheduled.submit(one)
    scheduled.submit(two)
    scheduled.step()
    scheduled.close()
    assert isinstance(waiting.error, ServerClosingError)
    with pytest.raises(ServerClosingError):
        scheduled.submit(two)
    scheduled.step()
    assert len(running.of(PieceWritten)) > 0
    scheduled.stop()
    assert isinstance(running.error, ServerClosingError)
    assert not scheduled.running

"""Rules that are learnt from what is read: whoever counts is as right as can be."""

import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from longreach.evaluation.tasks.patterns import icll, next_element, posgen
from longreach.evaluation.tasks.patterns._processes import automaton, markov_chain, next_symbols
from longreach.evaluation.tasks.patterns.icll import Icll
from longreach.evaluation.tasks.patterns.next_element import NextElement
from longreach.evaluation.tasks.patterns.posgen import Posgen
from tests.evaluation.asked import facts, mean_mark, passage


def counter(longest):
    """Answers with what most often came after the most of the last symbols that came at least three times before it (or once)."""

    def read(text, question):
        begun = re.search(r'"(.*?)"', question)[1].split()
        lines = [line.split() for line in text.split("\n\n", 1)[1].splitlines()]
        for least in (3, 1):
            for size in range(min(longest, len(begun)), -1, -1):
                ended = begun[len(begun) - size :]
                after = Counter(
                    line[place]
                    for line in lines
                    for place in range(size, len(line))
                    if line[place - size : place] == ended
                )  # fmt: skip
                if sum(after.values()) >= least:
                    return f"I expect {after.most_common(1)[0][0]}."
        raise AssertionError("nothing was read")

    return read


def adder(text, question):
    numbers = [int(one) for one in text.split("\n\n")[1].split()]
    told = re.search(r"goes on with ([\d ]+)\.", question)
    numbers += [int(one) for one in told[1].split()] if told else []
    drawn, modulus = int(re.search(r"After the first (\d+)", question)[1]), int(re.search(r"modulo (\d+)", question)[1])
    near = int(re.search(r"the (\d+) numbers before it", question)[1])
    far, place = drawn - near, 0
    if "from further back" in question:
        place = (len(numbers) - drawn) // 2
    return f"{(sum(numbers[len(numbers) - near :]) + sum(numbers[place : place + far])) % modulus}"


@pytest.mark.parametrize(("task", "longest"), [(NextElement(), 2), (NextElement(process="automaton"), 6)], ids=str)
def test_who_counts_what_followed_is_about_as_right_as_the_right_process(task, longest):
    asks = [ask for number in range(20) for ask in passage(task, number, 16_000).asks]
    best = np.mean([ask.about["best"] for ask in asks])
    error = 0.5 / len(asks) ** 0.5
    assert best - 3 * error < mean_mark(task, counter(longest), length=16_000) < best + 3 * error
    assert best > np.mean([task.chance(ask) for ask in asks]) + 0.2


def test_a_shorter_memory_than_a_markov_chain_has_is_not_enough():
    task = NextElement(order=2)
    assert mean_mark(task, counter(1), length=16_000) < mean_mark(task, counter(2), length=16_000) - 0.1


@pytest.mark.parametrize("task", icll.EXAMPLES, ids=str)
def test_who_has_seen_what_may_follow_a_beginning_is_right(task):
    assert mean_mark(task, counter(8), length=24_000) >= 0.99
    assert mean_mark(task, lambda text, question: "z9") == 0.0


def test_any_symbol_that_the_language_allows_is_right_and_all_others_are_wrong():
    task = Icll()
    for ask in passage(task).asks:
        begun = ask.opening.split()
        assert all(task.mark(ask, f"{symbol} {begun[0]}") == 1.0 for symbol in ask.expected["allowed"])
        wrong = set(ask.expected["alphabet"]) - set(ask.expected["allowed"])
        assert not any(task.mark(ask, symbol) for symbol in wrong)
        assert wrong == set(ask.choices) - {ask.right}
        assert task.mark(ask, ", ".join([*ask.expected["allowed"], *wrong])) == 0.0


@pytest.mark.parametrize("task", [*posgen.EXAMPLES, Posgen(far=2, near=4, questions=2)], ids=str)
def test_who_adds_by_the_rule_is_right(task):
    assert mean_mark(task, adder) == 1.0


def test_a_posgen_rule_is_needed_in_its_own_form():
    wrong = mean_mark(Posgen(form="semi_recursive"), lambda text, question: adder(text, question.replace("further back", "the start")))
    assert wrong < 0.25


@pytest.mark.parametrize("task", [*next_element.EXAMPLES, *icll.EXAMPLES], ids=str)
def test_questions_are_the_same_at_every_length(task):
    assert facts(task, 8_000) == facts(task, 30_000)
    assert passage(task, 3, 30_000).text.startswith(passage(task, 3, 8_000).text[:7_000])


@pytest.mark.parametrize("made", [markov_chain, automaton], ids=lambda made: made.__name__)
def test_a_process_writes_by_the_shares_that_it_states(made):
    rng = np.random.default_rng(1)
    process = made(rng, ("a", "b", "c"), 2) if made is markov_chain else made(rng, ("a", "b", "c"), 3, even=False)
    counted, stated = defaultdict(Counter), {}
    for _ in range(3000):
        *begun, symbol = process.string(rng, 5)
        key = tuple(sorted(process.after(begun).items()))
        counted[key][symbol] += 1
        stated[key] = process.after(begun)
    for key, seen in counted.items():
        for symbol, share in stated[key].items():
            assert seen[symbol] / seen.total() == pytest.approx(share, abs=4 * 0.5 / seen.total() ** 0.5)


def test_every_state_of_an_automaton_is_left_and_reached_again():
    for seed in range(50):
        made = automaton(np.random.default_rng(seed), "bcdef", 7, even=True)
        assert all(
            place not in state.following and len(set(state.symbols)) == len(state.symbols) for place, state in enumerate(made.states)
        )
        reached, fresh = {0}, {0}
        while fresh := {end for place in fresh for end in made.states[place].following} - reached:
            reached |= fresh
        assert reached == set(range(7))


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("c", {"c"}),
        (" C.", {"c"}),
        ("The next symbol is c, I think", {"c"}),
        ("b d b c", {"b", "c"}),  # goes on, or repeats the beginning
        ('"b d b" goes on with c', {"c"}),
        ("c d b d", {"c"}),
        ("c, d, b", set()),
        ("c or d", set()),
        ("", set()),
        ("I don't know, it's hard", set()),
        ("It can't be 'd'", {"d"}),
    ],
)
def test_what_an_answer_says_comes_next(written, found):
    assert next_symbols(written, ["b", "d", "b"], "[b-hj-z]") == found

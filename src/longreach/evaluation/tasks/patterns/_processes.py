"""Random processes that write strings of symbols, and what may be read out of an answer that continues one."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, product

import numpy as np

_PEAKED = 0.3  # of a Dirichlet distribution: few of the next symbols are likely
_MORE = r"\W*(?:,|/|;|\bor\b|\band\b)"  # between the symbols of a list


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """What may follow: symbols, how likely each is, and the state that it leads to."""

    symbols: tuple[str, ...]
    shares: tuple[float, ...]
    following: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Process:
    """Args: states: of a finite automaton, in which a symbol leads to one state. starts: what is written first, and the state after it."""

    states: tuple[Outgoing, ...]
    starts: tuple[tuple[tuple[str, ...], int], ...]

    @cached_property
    def _sums(self) -> list[list[float]]:
        return [list(accumulate(state.shares)) for state in self.states]

    def string(self, rng: np.random.Generator, length: int) -> list[str]:
        """A string of so many symbols."""
        begun, state = self.starts[int(rng.integers(len(self.starts)))]
        written = list(begun)
        for chance in rng.random(max(0, length - len(begun))).tolist():
            here = self.states[state]
            place = min(bisect_right(self._sums[state], chance), len(here.symbols) - 1)
            written.append(here.symbols[place])
            state = here.following[place]
        return written[:length]

    def after(self, string: Sequence[str]) -> dict[str, float]:
        """What may follow a string of this process, and how likely each is."""
        for begun, state in self.starts:
            if tuple(string[: len(begun)]) == begun:
                for symbol in string[len(begun) :]:
                    here = self.states[state]
                    state = here.following[here.symbols.index(symbol)]
                return dict(zip(self.states[state].symbols, self.states[state].shares, strict=True))
        raise ValueError(f"{string[:4]} ... does not begin as strings of this process do")


def markov_chain(rng: np.random.Generator, symbols: Sequence[str], order: int) -> Process:
    """Each symbol hangs on the `order` (>= 1) symbols before it; the first ones are random."""
    contexts = list(product(range(len(symbols)), repeat=order))
    places = {context: place for place, context in enumerate(contexts)}
    states = tuple(
        Outgoing(
            symbols=tuple(symbols),
            shares=tuple(rng.dirichlet([_PEAKED] * len(symbols)).tolist()),
            following=tuple(places[*context[1:], symbol] for symbol in range(len(symbols))),
        )
        for context in contexts
    )
    starts = tuple((tuple(symbols[one] for one in context), place) for context, place in places.items())
    return Process(states=states, starts=starts)


def automaton(rng: np.random.Generator, symbols: Sequence[str], states: int, *, even: bool) -> Process:
    """From each of the states (>= 3) 1 to 4 symbols lead to as many others, so that every state is reached again and again.

    Args: even: each is as likely; else their shares are random.
    """
    most, made = min(4, len(symbols), states - 1), []
    order = rng.permutation(states).tolist()
    successor = dict(zip(order, [*order[1:], order[0]], strict=True))
    for state in range(states):
        count = int(rng.integers(1, most + 1))
        others = [one for one in rng.permutation(states).tolist() if one not in (state, successor[state])]
        shares = np.full(count, 1 / count) if even else rng.dirichlet([1.0] * count)
        made.append(
            Outgoing(
                symbols=tuple(symbols[one] for one in rng.permutation(len(symbols))[:count].tolist()),
                shares=tuple(shares.tolist()),
                following=(successor[state], *others[: count - 1]),
            )
        )
    return Process(states=tuple(made), starts=(((), 0),))


def next_symbols(written: str, begun: Sequence[str], symbol: str) -> set[str]:
    """The symbol that an answer says comes next, in lower case: the first one in it; none where others are listed with it.

    What repeats the beginning of the string is passed over. An answer that goes on as the string began can be read in both ways.
    Args: symbol: a pattern for all that may be one.
    """
    whole = rf"(?<![^\W_])(?<![^\W_]['\u2019])(?:{symbol})(?![^\W_])"  # and not the end of a word like don't
    text, repeated = written.lower().strip(), r"\W+".join(map(re.escape, begun)) + r"(?![^\W_])"
    rests = [re.sub(repeated, "", text)]
    if again := re.match(repeated, text):
        rests = [text, text[again.end() :]]
    found = set[str]()
    for rest in rests:
        first = re.search(whole, rest)
        if first and not re.match(rf"{_MORE}\s*{whole}", rest[first.end() :]):
            found.add(first[0])
    return found

"""Every state that one row of the inbox, and the world around it, can come into.

python -m tests.simulation.inbox.explore
"""

from __future__ import annotations

import sys
from array import array
from itertools import pairwise
from time import perf_counter
from typing import Final, NamedTuple

from .machine import Config, Machine, Order, State
from .promises import broken, is_at_rest

CONFIGS: Final = (
    Config("compensable, plain do and undo, closes, 2 faults", "compensable", attempts=1),
    Config("compensable, plain, 2 attempts each, 3 faults", "compensable", faults=3, closes=False),
    Config("compensable, outside do and undo, closes, 1 fault", "compensable", True, True, 1, 1),
    Config("compensable, outside do and undo, closes, 2 faults", "compensable", True, True, 2, 1, again=False),
    Config("compensable, outside, 2 attempts, 3 faults", "compensable", True, True, 3, 2, closes=False, again=False),
    Config("compensable, outside do and undo twice, 2 faults", "compensable", True, True, 2, 1, closes=False),
    Config("compensable, outside do, plain undo, 1 fault", "compensable", True, False, 1, closes=False),
    Config("compensable, plain do, outside undo, closes, 1 fault", "compensable", False, True, 1, 1, again=False),
    Config("pivot, plain, settled, closes, 1 fault", "pivot", False, False, 1, 1, turns=False),
    Config("pivot, outside, settled, closes, 1 fault", "pivot", True, False, 1, 1, turns=False),
    Config("pivot, outside, settled, 2 faults", "pivot", True, False, 2, 1, closes=False, turns=False),
    Config("pivot, outside, settled, then undone, 1 fault", "pivot", True, True, 1, 1, closes=False, again=False),
    Config("retriable, plain, closes, 2 faults", "retriable", False, False, 2, 1),
    Config("retriable, outside, closes, 2 faults", "retriable", True, False, 2, 1),
    Config("do again, then undo; outside, 1 fault", "any", True, True, 1, 1, closes=False, again=False),
)
SMALL: Final = (
    Config("compensable, plain, closes, 1 fault", "compensable", faults=1, attempts=1, again=False),
    Config("compensable, outside, 1 fault", "compensable", True, True, 1, 1, closes=False, again=False),
    Config("compensable, outside undo, closes", "compensable", False, True, 0, 1, again=False),
    Config("pivot, outside, closes", "pivot", True, False, 0, 1, turns=False, again=False),
    Config(
        "compensable, outside that declines", "compensable", True, True, 1, 1, closes=False, again=False, declines=True
    ),
    Config("retriable, outside, 1 fault", "retriable", True, False, 1, 1, closes=False),
)
"""Those that the suite of every day has time for."""


class Found(NamedTuple):
    """What an exploration has seen."""

    states: int
    broken: str = ""
    """The promise that does not hold."""
    way: tuple[str, ...] = ()
    """A shortest way there, in sentences."""


SOUND: Final = Order()


def explore(config: Config, order: Order = SOUND, wanted: str = "", *, is_lively: bool = True) -> Found:
    """Look at all states that can be reached, breadth first, so that the first harm found has a shortest way to it.

    Args:
        config: what is explored.
        order: how workers go about it.
        wanted: stop at this promise only; at any by default.
        is_lively: whether `ends` is asked: that from every state, without faults and without the operator, rest can be
            reached. In a finite graph whose steps are all taken if they stay possible, it then is reached.
    """
    machine, start = Machine(config, order), State()
    known, states, parents = {start: 0}, [start], array("l", [-1])
    sources, targets = array("l"), array("l")
    place = 0
    while place < len(states):
        state = states[place]
        harm = broken(machine, state)
        if harm and harm == (wanted or harm):
            return Found(len(states), harm, _told(machine, states, parents, place))
        for text, after in machine.steps(state):
            number = known.get(after)
            if number is None:
                number = known[after] = len(states)
                states.append(after)
                parents.append(place)
            if is_lively and text[0] not in "!?":
                sources.append(place)
                targets.append(number)
        place += 1
    if is_lively and wanted in ("", "ends"):
        stuck = _never_at_rest(states, sources, targets)
        if stuck >= 0:
            return Found(len(states), "ends", _told(machine, states, parents, stuck))
    return Found(len(states))


def _never_at_rest(states: list[State], sources: array[int], targets: array[int]) -> int:
    """The first state from which rest cannot be reached, or -1: backwards from all that are at rest."""
    count = len(states)
    firsts = array("l", bytes((count + 1) * array("l").itemsize))
    for target in targets:
        firsts[target + 1] += 1
    for number in range(count):
        firsts[number + 1] += firsts[number]
    places, before = array("l", firsts), array("l", bytes(len(sources) * firsts.itemsize))
    for source, target in zip(sources, targets, strict=True):
        before[places[target]] = source
        places[target] += 1
    can = bytearray(count)
    queue = [number for number, state in enumerate(states) if is_at_rest(state)]
    for number in queue:
        can[number] = 1
    while queue:
        number = queue.pop()
        for source in before[firsts[number] : firsts[number + 1]]:
            if not can[source]:
                can[source] = 1
                queue.append(source)
    return can.find(0)


def _told(machine: Machine, states: list[State], parents: array[int], place: int) -> tuple[str, ...]:
    """The way to a state, in sentences."""
    way = []
    while place >= 0:
        way.append(states[place])
        place = parents[place]
    way.reverse()
    steps = pairwise(way)
    return tuple(next(text for text, reached in machine.steps(one) if reached == other) for one, other in steps)


def main() -> int:
    """Explore every configuration, and print what was seen."""
    began, total, harms = perf_counter(), 0, 0
    for config in CONFIGS:
        found = explore(config)
        total, harms = total + found.states, harms + bool(found.broken)
        lines = [f"{found.states:>9,} states  {found.broken or 'holds':10} {config.name}", *found.way]
        sys.stdout.write("\n           ".join(lines) + "\n")
        sys.stdout.flush()
    sys.stdout.write(f"{total:,} states in {perf_counter() - began:.0f} s\n")
    return harms


if __name__ == "__main__":
    sys.exit(main())

"""What a storm came to, as values: faults with how long it took to recover, sagas by outcome, throughput. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import median

import msgspec

from .schedule import LEADER, Fault


class Ran(msgspec.Struct):
    """A saga, in seconds since the storm began.

    Args:
        name: as `type/id`.
        began: before its client asked for it to be started.
        ended: when the client heard of its end; None if it never did.
        outcome: what it heard.
    """

    name: str
    began: float
    ended: float | None = None
    outcome: str = ""


class Struck(msgspec.Struct):
    """A fault that came about, in seconds since the storm began.

    Args:
        fault: as it was planned.
        sort: as a table counts it.
        target: whom it hit.
        at: when it began.
        whole: when the processes that had ended served again; None of a fault in which none ends.
    """

    fault: Fault
    sort: str
    target: str
    at: float
    whole: float | None = None


class Spread(msgspec.Struct, frozen=True):
    """Seconds: the median and the longest."""

    p50: float
    max: float

    def __str__(self) -> str:
        return f"{self.p50:.1f} / {self.max:.1f}"


class Row(msgspec.Struct, frozen=True):
    """All faults of a sort, with how long it took from the beginning of each.

    Args:
        sort: what was done to whom.
        faults: how many.
        next_saga: until a saga that began after it had ended: how long new sagas are held up.
        under_way: until all sagas had ended that were under way: how long those are held up whom it hit.
        process: until the processes that it ended served again.
    """

    sort: str
    faults: int
    next_saga: Spread | None
    under_way: Spread | None
    process: Spread | None


class Score(msgspec.Struct, frozen=True):
    """What a storm came to.

    Args:
        seed: of its schedule and its sagas.
        seconds: how long it took until the last saga ended.
        sagas: how many were started.
        faults: how many came about.
        outcomes: sagas by outcome, `open` of those that have not ended.
        rate: sagas a second that ended.
        duration: from the start of a saga until its client heard of its end.
        kinds: the faults by kind.
        leader_kills: how often the server was killed that led stream SAGA.
        rows: the faults by sort.
        impossible: faults that were asked for and did not come about, and kinds of which there could be none, in
            sentences.
        violations: what must not be, in sentences.
        told: the same with timelines.
    """

    seed: int
    seconds: float
    sagas: int
    faults: int
    outcomes: dict[str, int]
    rate: float
    duration: Spread | None
    kinds: list[Row]
    leader_kills: int
    rows: list[Row]
    impossible: list[str]
    violations: list[str]
    told: str = ""

    @property
    def is_good(self) -> bool:
        """Nothing that must hold was violated, and all that was asked for came about."""
        return not self.violations and not self.impossible

    @property
    def last_line(self) -> str:
        """The verdict, in one form whatever the numbers are, for programs that read it."""
        numbers = {"sagas": self.sagas, "faults": self.faults, "violations": len(self.violations)}
        return f"chaos: {', '.join(f'{number} {what}' for what, number in numbers.items())}"


def rows_of(
    struck: Iterable[Struck], ran: Sequence[Ran], by: Callable[[Struck], str] = lambda each: each.sort
) -> list[Row]:
    """The faults by sort, or by what a function says of each, in the order of their names."""
    groups = defaultdict[str, list[Struck]](list)
    for each in struck:
        groups[by(each)].append(each)
    return [
        Row(
            name,
            len(found),
            _spread(next_saga(each.at, ran) for each in found),
            _spread(under_way(each.at, ran) for each in found),
            _spread(each.whole - each.at if each.whole is not None else None for each in found),
        )
        for name, found in sorted(groups.items())
    ]


def kinds_of(struck: Iterable[Struck], ran: Sequence[Ran]) -> list[Row]:
    """The faults by kind."""
    return rows_of(struck, ran, by=lambda each: each.fault.kind)


def leader_kills_of(struck: Iterable[Struck]) -> int:
    """How often the server was killed that led stream SAGA, as far as the schedule aimed at it."""
    return sum(each.fault.kind == "kill" and each.fault.target == LEADER for each in struck)


def duration_of(ran: Iterable[Ran]) -> Spread | None:
    """How long sagas took, as far as they ended."""
    return _spread(each.ended - each.began if each.ended is not None else None for each in ran)


def next_saga(at: float, ran: Iterable[Ran]) -> float | None:
    """How long after a moment the first saga ended that began after it; None if none did."""
    return min((each.ended - at for each in ran if each.ended is not None and each.began >= at), default=None)


def under_way(at: float, ran: Iterable[Ran]) -> float | None:
    """How long after a moment the last saga ended that was under way then; None if none was, or one never ended."""
    held = [each for each in ran if each.began < at and (each.ended is None or each.ended > at)]
    ends = [each.ended - at for each in held if each.ended is not None]
    return max(ends) if ends and len(ends) == len(held) else None


def outcomes_of(ran: Iterable[Ran]) -> dict[str, int]:
    """Sagas by outcome."""
    return dict(sorted(Counter(each.outcome or "open" for each in ran).items()))


def _spread(seconds: Iterable[float | None]) -> Spread | None:
    known = [each for each in seconds if each is not None]
    return Spread(round(median(known), 2), round(max(known), 2)) if known else None

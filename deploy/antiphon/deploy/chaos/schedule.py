"""A schedule of faults, as a value: made from a seed, written to a file, and read from one."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec.structs import replace

from antiphon.contracts.errors import PlatformError
from antiphon.contracts.subjects import Direction
from antiphon.contracts.topology import EXPORTER, READMODEL
from antiphon.link.killpoints import HANGS, RAISED

from .faults import (
    COORDINATOR_POINTS,
    EXPORTER_POINTS,
    OUTSIDE_POINTS,
    PARTICIPANT_POINTS,
    READMODEL_POINTS,
    points_of,
)
from .network import CLIENT
from .poison import forms_of

Kind = Literal[
    "kill", "stop", "restart", "partition", "slow", "fail", "raise", "hang", "point", "poison", "lock", "fill", "outage"
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
LASTING: Final = ("stop", "partition", "slow", "lock", "fill", "outage")
"""Faults that last for `seconds`; of the others each is a moment."""
CALLS: Final = ("fail", "raise", "hang")
"""Faults of a call of a handler."""
BACKEND: Final = "backend"
"""Where the exporter sends spans; it can be stopped only, and refuses them then."""
OUTAGES: Final = ("kill", "stop", "partition")
"""How a cluster loses its quorum."""
POSTGRES: Final = "postgres"
"""The PostgreSQL of a run, which can be killed and restarted."""
OF_DATABASES: Final[Mapping[str, str]] = {"lock": "database", "fill": "disk"}
"""Faults of a database, each with what of it is harmed."""
LEADER: Final = "leader"
"""The server that leads stream SAGA at the moment of the fault."""

SERVERS: Final = "servers"
"""The place of all servers, of which one at a time is harmed."""

FIRST_SECONDS: Final = 1.0
QUIET_SECONDS: Final = 4.0
"""How long a server is left alone after a fault, so that its peers can do without another one."""
LONGEST_SECONDS: Final = 8.0
SHORTEST_SECONDS: Final = 1.0
DELAYS_SECONDS: Final = (0.02, 0.05, 0.2)
BETWEEN: Final = "between_appends"
"""The point that coordinators come by only where steps run at once."""


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault.

    Args:
        at: how many seconds after the beginning.
        kind: what is done.
        target: a process, a participant (all of its processes), `coordinator`, `nats-server`, one server, or `leader`;
            of `poison` the user who publishes, a participant or `client`; of `lock` whose SQLite database another
            process locks; of `fill` on whose disk there is no room; of `outage` the server that is left alone.
        other: of `partition` and `slow`, the server at the other end of the way; by default all.
        seconds: of `stop`, `partition`, `slow`, `lock`, `fill` and `outage`, after how long it is over; of `hang` how
            long the handler hangs, for ever when 0.
        delay: of `slow`, by how many seconds later everything arrives.
        point: of `point`, where the process dies, as `chaos.at` calls it.
        step: of `fail`, `raise` and `hang`, whose handler's next call does so.
        direction: of these, `undo` for the step's compensation.
        error: of `raise`, what is raised, as `chaos.raise_next` calls it.
        how: of `hang`, `wait`, `deaf` or `block`, as of `chaos.hang_next`; of `outage`, whether the other servers are
            killed, stopped, or cut off from each other and from that one: `kill`, `stop` or `partition`.
        times: of `fail`, `raise`, `hang`, `point` and `poison`, how often.
        message: of `poison`, which message, as `chaos.poison` calls it; by default each of them.
    """

    at: float
    kind: Kind
    target: str = ""
    other: str = ""
    seconds: float = 0.0
    delay: float = 0.0
    point: str = ""
    step: str = ""
    direction: Direction = "do"
    times: int = 1
    message: str = ""
    error: str = ""
    how: str = ""

    def __str__(self) -> str:
        if self.kind == "outage":
            return f"outage ({self.how}) of all servers but {self.target} for {self.seconds:g} s"
        manner = self.message or self.error or self.how
        words = [self.kind, *([manner] if manner else []), self.step or self.target]
        words += ["from", self.other] if self.other else []
        words += ["at", self.point] if self.point else []
        words += ["undo"] if self.direction == "undo" else []
        words += [f"by {self.delay:g} s"] if self.delay else []
        words += [f"for {self.seconds:g} s"] if self.seconds else []
        words += [f"{self.times} times"] if self.times > 1 else []
        return " ".join(words)


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The faults of a run, in order.

    Args:
        faults: all of them.
        seed: what they were made from, and what sagas are run with.
    """

    faults: tuple[Fault, ...]
    seed: int = 0


class Targets(msgspec.Struct, frozen=True):
    """What can be harmed on a platform.

    Args:
        participants: the processes of each.
        coordinators: the processes.
        servers: their names.
        calls: the steps whose handlers run here, each with `do` or `undo`; of a list its first element.
        outside: the participants that have handlers with effects outside the database.
        has_branches: whether steps run at once.
        watchers: of `exporter` and `readmodel` those that run.
        sqlite: whose databases are SQLite's.
        has_postgres: whether there is a PostgreSQL that may be killed.
        disks: the participants whose databases have small disks.
        kinds: the kinds of faults that can be done there at all.
    """

    participants: Mapping[str, Sequence[str]]
    coordinators: Sequence[str]
    servers: Sequence[str]
    calls: Sequence[tuple[str, Direction]] = ()
    outside: Sequence[str] = ()
    has_branches: bool = False
    watchers: Sequence[str] = ()
    sqlite: Sequence[str] = ()
    has_postgres: bool = False
    disks: Sequence[str] = ()
    kinds: Sequence[Kind] = KINDS

    @property
    def processes(self) -> list[str]:
        """All processes but the servers."""
        own = (name for names in self.participants.values() for name in names)
        return [*self.coordinators, *own, *self.watchers]

    @property
    def backend(self) -> list[str]:
        """`backend` where there is one."""
        return [BACKEND] if EXPORTER in self.watchers else []

    @property
    def names(self) -> set[str]:
        """All that a fault may name."""
        own = {*self.processes, *self.participants, *self.servers, *self.backend, LEADER, "nats-server", CLIENT}
        own |= {POSTGRES} if self.has_postgres else set()
        return own | ({"coordinator"} if self.coordinators else set())

    @property
    def points(self) -> dict[str, list[str]]:
        """Where processes die that the sagas come by, by the class of the process."""
        outside = [] if self.outside else [*OUTSIDE_POINTS]
        return {
            "participant": [word for word in PARTICIPANT_POINTS if word not in outside],
            "coordinator": [word for word in COORDINATOR_POINTS if self.has_branches or word != BETWEEN],
            EXPORTER: [*EXPORTER_POINTS],
            READMODEL: [*READMODEL_POINTS],
        }

    def owner(self, name: str) -> str:
        """What a process is of: `participant`, `coordinator` or `server`; itself where there is one of its kind."""
        if name in (LEADER, CLIENT, BACKEND, POSTGRES, *self.watchers):
            return name
        if name == "coordinator" or name in self.coordinators:
            return "coordinator"
        return "server" if name == "nats-server" or name in self.servers else "participant"


def sort_of(fault: Fault, targets: Targets) -> str:
    """A fault's kind with what it harms, as a table counts them."""
    if fault.kind in CALLS:
        kind = f"hang ({fault.how})" if fault.kind == "hang" else fault.kind
        return f"{kind} in a handler" if fault.direction == "do" else f"{kind} in a compensation"
    if fault.kind == "outage":
        return f"outage ({fault.how})"
    if fault.kind in OF_DATABASES:
        return f"{fault.kind} {OF_DATABASES[fault.kind]}"
    if fault.kind == "point":
        return f"kill {targets.owner(fault.target)} {fault.point}"
    return f"{fault.kind} {targets.owner(fault.target)}"


# --- made from a seed -------------------------------------------------------------------------------------------------


def make(
    seed: int, targets: Targets, *, count: int = 0, seconds: float = 0.0, every: float, kinds: Collection[str] = ()
) -> Schedule:
    """A schedule that a seed stands for: the same again for the same platform.

    Every sort of fault comes up before one comes up twice. From then on all kinds come up equally often, and so do the
    sorts of each; the kill of the leader counts as a kind of its own. A process is left alone while another fault of it
    lasts, and of the servers one at a time is harmed.

    Args:
        seed: of all choices.
        targets: what there is to harm.
        count: how many faults; as many as fit into the time when 0.
        seconds: how long it goes on; as long as the faults need when 0.
        every: after how many seconds the next fault comes, about.
        kinds: only these; all by default.

    Raises:
        PlatformError: a kind was asked for that this platform has nothing for.
    """
    choose = random.Random(seed)
    known = {kind: [*_sorts(kind, targets)] for kind in KINDS if not kinds or kind in kinds}
    for kind, sorts in known.items():
        if kinds and not sorts:
            raise PlatformError(f"a fault of the kind {kind} is not possible here: {_why_not(kind, targets)}.")
    every_sort = [sort for sorts in known.values() for sort in sorts]
    taken = Counter[Fault]()
    if count and seconds:
        every = (seconds - FIRST_SECONDS) / count
    faults = list[Fault]()
    databases = map(_database_of, (*targets.sqlite, *targets.disks))
    free_at = dict.fromkeys((*targets.processes, *targets.backend, *databases, POSTGRES, SERVERS), 0.0)
    at = FIRST_SECONDS
    while (not count or len(faults) < count) and (not seconds or count or at < seconds):
        sort = _next_sort(every_sort, taken, choose)
        taken[sort] += 1
        faults.append(_aimed(sort, at, choose, targets, free_at))
        at += every * choose.uniform(0.5, 1.5) if not (count and seconds) else every
    return Schedule(tuple(sorted(faults, key=lambda each: each.at)), seed)


def impossible(targets: Targets) -> dict[Kind, str]:
    """The kinds of faults that a platform has nothing for, each with the reason."""
    return {kind: _why_not(kind, targets) for kind in KINDS if not any(_sorts(kind, targets))}


def _next_sort(every_sort: Sequence[Fault], taken: Counter[Fault], choose: random.Random) -> Fault:
    """A sort that has not come up, or else one of those that came up least often of the kind that did."""
    if unseen := [sort for sort in every_sort if not taken[sort]]:
        return choose.choice(unseen)
    by_kind = Counter[tuple[Kind, bool]]()
    for sort in every_sort:
        by_kind[_share_of(sort)] += taken[sort]
    least = min(by_kind.values())
    kind = choose.choice([kind for kind, count in by_kind.items() if count == least])
    mine = [sort for sort in every_sort if _share_of(sort) == kind]
    fewest = min(taken[sort] for sort in mine)
    return choose.choice([sort for sort in mine if taken[sort] == fewest])


def _share_of(sort: Fault) -> tuple[Kind, bool]:
    """Among which sorts one comes up equally often: those of its kind, without the kill of the leader, which would be
    one of seven kills, and harms a cluster most."""
    return sort.kind, (sort.kind, sort.target) == ("kill", LEADER)


def _sorts(kind: Kind, targets: Targets) -> Iterator[Fault]:
    """The sorts of faults of a kind, each without a time and still aimed at a class: `participant`, `coordinator`."""
    classes = ["participant"] * bool(targets.participants) + ["coordinator"] * bool(targets.coordinators)
    classes += targets.watchers
    if kind not in targets.kinds:
        return
    match kind:
        case "kill" | "stop":
            servers = ["server", *([LEADER] if len(targets.servers) > 1 else [])]
            backend = targets.backend if kind == "stop" else []
            database = [POSTGRES] * targets.has_postgres if kind == "kill" else []
            yield from (Fault(0, kind, each) for each in (*classes, *servers, *backend, *database))
        case "restart" | "partition" | "slow":
            database = [POSTGRES] * targets.has_postgres if kind == "restart" else []
            yield from (Fault(0, kind, each) for each in (*classes, "server", *database))
        case "outage":
            yield from [Fault(0, kind, "server", how=how) for how in OUTAGES if len(targets.servers) > 1]
        case "lock":
            yield from [Fault(0, kind)] * bool(targets.sqlite)
        case "fill":
            yield from [Fault(0, kind)] * bool(targets.disks)
        case "point":
            yield from (Fault(0, kind, each, point=point) for each in classes for point in targets.points[each])
        case "fail" | "raise" | "hang":
            directions: list[Direction] = sorted({direction for _, direction in targets.calls})
            ways = HANGS if kind == "hang" else ("",)
            yield from (Fault(0, kind, direction=direction, how=how) for direction in directions for how in ways)
        case "poison":
            yield from (Fault(0, kind, each) for each in (CLIENT, *["participant"] * bool(targets.participants)))


def _aimed(sort: Fault, at: float, choose: random.Random, targets: Targets, free_at: dict[str, float]) -> Fault:
    """A fault of a sort, at something that is free at a time, or as soon as something is."""
    # Drawn whether it is needed or not, so that a fault more or less changes no other.
    does_last = sort.kind in LASTING or sort.how == "block"
    lasts = round(choose.uniform(SHORTEST_SECONDS, LONGEST_SECONDS), 1) if does_last else 0.0
    delay = choose.choice(DELAYS_SECONDS)
    if sort.kind in CALLS:
        step = choose.choice([step for step, direction in targets.calls if direction == sort.direction])
        error = choose.choice([*RAISED]) if sort.kind == "raise" else ""
        return replace(sort, at=round(at, 2), step=step, error=error, seconds=lasts if sort.how == "block" else 0.0)
    if sort.kind == "poison":
        user = choose.choice([*targets.participants]) if sort.target != CLIENT else CLIENT
        return replace(sort, at=round(at, 2), target=user)
    if sort.kind in OF_DATABASES:
        target = choose.choice([*(targets.sqlite if sort.kind == "lock" else targets.disks)])
        place = _database_of(target)
    elif sort.target in ("server", LEADER):
        target, place = (LEADER if sort.target == LEADER else choose.choice([*targets.servers])), SERVERS
    else:
        own = [*targets.processes, *targets.backend, *[POSTGRES] * targets.has_postgres]
        own = [name for name in own if targets.owner(name) == sort.target]
        if sort.point in OUTSIDE_POINTS:
            own = [name for participant in targets.outside for name in targets.participants[participant]]
        soonest = min(max(at, free_at[name]) for name in own)
        target = place = choose.choice([name for name in own if free_at[name] <= soonest])
    at = round(max(at, free_at[place]), 2)
    free_at[place] = at + lasts + QUIET_SECONDS
    return replace(sort, at=at, target=target, seconds=lasts, delay=delay if sort.kind == "slow" else 0.0)


def _database_of(name: str) -> str:
    return f"database of {name}"


def _why_not(kind: str, targets: Targets) -> str:
    """Why there is no fault of a kind on a platform."""
    if kind not in targets.kinds:
        return f"of a platform that others have started the processes can be harmed only, by {', '.join(targets.kinds)}"
    if kind in OF_DATABASES:
        return f"nobody has {'an SQLite database' if kind == 'lock' else 'a small disk'}"
    if kind == "outage":
        return "one server has no quorum to lose"
    return "no step has a handler to fail" if kind in CALLS else "there is nobody whom it could hit"


# --- in a file --------------------------------------------------------------------------------------------------------


def read(path: Path, targets: Targets) -> Schedule:
    """The schedule in a file, TOML or, where it is named `.json`, JSON.

    Raises:
        PlatformError: it cannot be read, is none, or harms what this platform has not; the sentence says what.
    """
    try:
        data = path.read_bytes()
        decode = msgspec.json.decode if path.suffix == ".json" else msgspec.toml.decode
        schedule = decode(data, type=Schedule)
    except OSError as error:
        raise PlatformError(f"cannot read the schedule {path}: {error.strerror}.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise PlatformError(f"{path} holds no schedule: {error}.") from None
    for number, fault in enumerate(schedule.faults, 1):
        if wrong := _wrong(fault, targets):
            raise PlatformError(f"fault {number} of {path}, {fault}, is not possible: {wrong}.")
    return Schedule(tuple(sorted(schedule.faults, key=lambda each: each.at)), schedule.seed)


def write(schedule: Schedule, path: Path) -> None:
    """Write a schedule into a file, for `read`."""
    if path.suffix == ".json":
        path.write_bytes(msgspec.json.format(msgspec.json.encode(schedule)))
    else:
        path.write_text(as_toml(schedule))


def as_toml(schedule: Schedule) -> str:
    """A schedule as a person writes it."""
    blocks = [f"seed = {schedule.seed}"]
    for fault in schedule.faults:
        # What JSON writes of a number or of a name is TOML as well.
        fields: dict[str, Any] = msgspec.to_builtins(fault)
        blocks.append("\n".join(["[[faults]]", *(f"{name} = {json.dumps(value)}" for name, value in fields.items())]))
    return "\n\n".join(blocks) + "\n"


def _wrong(fault: Fault, targets: Targets) -> str:
    """Why a fault cannot be, or nothing."""
    if fault.kind not in targets.kinds:
        return _why_not(fault.kind, targets)
    if fault.at < 0 or fault.seconds < 0 or fault.delay < 0 or fault.times < 1:
        return "no time is before the beginning, and it happens at least once"
    if fault.kind == "raise" and fault.error not in RAISED:
        return f"say with `error` what is raised, one of {', '.join(RAISED)}"
    if fault.kind == "hang" and (fault.how not in HANGS or (fault.how == "block" and not fault.seconds)):
        return (
            f"say with `how` in which way it hangs, one of {', '.join(HANGS)}, and of the last for how many `seconds`"
        )
    if fault.kind in CALLS:
        known = ", ".join(sorted({step for step, _ in targets.calls})) or "there is none"
        called = {(fault.step, fault.direction), (f"{fault.step.rpartition('-')[0]}-0", fault.direction)}
        return "" if called & {*targets.calls} else f"no step here has such a handler to fail; name one of {known}"
    if fault.kind in OF_DATABASES:
        owners = targets.sqlite if fault.kind == "lock" else targets.disks
        is_whose = fault.target in owners and fault.seconds
        return "" if is_whose else f"name one of {', '.join(owners) or 'nobody'}, and say `seconds`"
    for name in (fault.target, *([fault.other] if fault.other else [])):
        if name not in targets.names or (name == LEADER and not targets.servers):
            return f"there is no {name!r} here; there are {', '.join(sorted(targets.names))}"
    if fault.kind == "poison":
        if fault.target not in (CLIENT, *targets.participants):
            return f"only a user can publish: {', '.join([CLIENT, *targets.participants])}"
        known = ", ".join(forms_of(fault.target))
        return "" if fault.message in ("", *forms_of(fault.target)) else f"it has no such message; name one of {known}"
    if fault.target == CLIENT and fault.kind not in ("partition", "slow"):
        return "a client can be cut off and slowed, and publish what nobody can use"
    if fault.kind == "outage":
        is_whole = (
            fault.target in targets.servers and len(targets.servers) > 1 and fault.how in OUTAGES and fault.seconds
        )
        return "" if is_whole else f"name one of three servers, say `seconds`, and `how`, one of {', '.join(OUTAGES)}"
    if fault.target == POSTGRES and fault.kind not in ("kill", "restart"):
        return "PostgreSQL can be killed and restarted only"
    if fault.target == BACKEND and fault.kind != "stop":
        return "a tracing backend can be stopped only"
    if fault.kind in LASTING and not fault.seconds:
        return "say with `seconds` after how long it is over"
    if fault.kind == "slow" and not fault.delay:
        return "say with `delay` by how many seconds later everything arrives"
    if fault.kind == "point":
        owner = targets.owner(fault.target)
        points = points_of(owner) if owner not in ("server", LEADER) else {}
        if fault.point not in points:
            return f"it has no point {fault.point!r}; name one of {', '.join(points or ['those of a participant'])}"
    return ""

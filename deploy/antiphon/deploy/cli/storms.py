"""`antiphon chaos`: a platform of its own in a storm, and a table of what that came to."""

from __future__ import annotations

import asyncio
import os
import platform
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from inspect import isabstract
from pathlib import Path
from typing import Any, Literal, TypeVar

from rich import box
from rich.table import Table

from antiphon.contracts.counting import counted
from antiphon.contracts.errors import PlatformError
from antiphon.coordinator.definition.choreography import AnySaga
from antiphon.coordinator.definition.versions import with_children
from antiphon.participants import Participant

from ..chaos.disks import why_not
from ..chaos.loads import Load, Payloads
from ..chaos.orders import Orders
from ..chaos.platform import ChaosPlatform, Settings, can_export, can_list
from ..chaos.running import POSSIBLE, RunningPlatform
from ..chaos.schedule import KINDS, POSTGRES, Kind, Schedule, Targets, as_toml, impossible, make, read, write
from ..chaos.score import Score, Spread
from ..chaos.storm import Storm
from ..chaos.summary import as_markdown
from ..local.server import find_binary
from ..local.styles import Style
from ..local.up import parts_of
from ..modules import CannotLoad, WrongValue, load, load_saga
from ..render.plain import warn
from ..render.terminal import console, foreign, say, say_document, say_json
from .payloads import read_event, read_given

T = TypeVar("T")

INTERRUPTED = 130
"""The exit code of a storm that was told to end, as shells have it for Ctrl-C."""


@dataclass(frozen=True)
class Asked:
    """What was asked for, as the command's options say it."""

    app: Sequence[str]
    participant: Sequence[str]
    payload: Path | None
    load: str
    saga: str
    style: Style
    ledger: Sequence[str]
    database: Sequence[str]
    servers: Literal[1, 3]
    streams: int
    coordinators: int
    workers: int
    handler_seconds: float
    exporter: bool | None
    readmodel: bool | None
    small_disks: bool | None
    minutes: float
    faults: int
    every: float
    only: Sequence[Kind]
    without: Sequence[Kind]
    seed: int
    schedule: Path | None
    at_once: int
    within: float
    folder: Path | None
    running: Path | None
    plan: bool
    summary: Path | None
    json: bool


def run_storm(asked: Asked) -> int:
    """Run a storm as it was asked for, and return its exit code: 0 if nothing is violated and every fault came about.

    Raises:
        CannotLoad: sagas, participants or payloads are not as they must be.
        PlatformError: a fault of the schedule is not possible here, or the platform does not start.
    """
    seed = asked.seed or random.SystemRandom().randrange(1, 1 << 31)
    told = Told()
    with told.heard(), _folder(asked) as folder, _platform(asked, folder) as (chaos, lines):
        try:
            targets = _targets(asked, chaos)
            schedule, missing = _schedule(asked, targets, seed), _missing(asked, targets)
            for line in missing:
                warn(f"antiphon: {line}")
            if asked.plan:
                _print_schedule(schedule, json=asked.json)
                return 0
            sagas = _load(asked, schedule.seed, chaos)
            folder.mkdir(parents=True, exist_ok=True)
            write(schedule, folder / "faults.toml")
            variables = sagas.environment(folder.resolve())
            if isinstance(chaos, ChaosPlatform):
                chaos.environment.update(variables)
            elif variables:
                raise CannotLoad(
                    f"{asked.load} needs processes that know {', '.join(variables)}, and those of a platform that runs "
                    "already do not: leave out --running."
                )
            chaos.start()
            for text in asked.ledger:
                participant, _, query = text.partition("=")
                chaos.ledger(participant, query)
            tell = warn if asked.json else say
            tell(
                f"seed {schedule.seed}, {counted(len(schedule.faults), 'fault')}, "
                f"{counted(len(chaos.processes), 'process', 'processes')}, "
                f"{counted(len(targets.servers), 'server')}{_pairs(asked)}; all of it stays in {folder}"
            )
            for line in lines:
                tell(line)
            storm = Storm(
                chaos,
                schedule,
                sagas,
                tell,
                seconds=asked.minutes * 60,
                at_once=asked.at_once,
                within_seconds=asked.within,
                missing=missing,
            )
            score = asyncio.run(told.unless_told(storm.run()))
        except KeyboardInterrupt:
            warn(
                f"antiphon: told to end; nothing was checked. What was seen until now stays in {folder}, and "
                f"--schedule {folder / 'faults.toml'} has the same faults again."
            )
            raise SystemExit(INTERRUPTED) from None
        finally:
            told.is_ending = True
            chaos.close()
    if asked.summary is not None:
        asked.summary.write_text(as_markdown(score, "A storm of `antiphon chaos`", _about(asked, targets)))
    if asked.json:
        say_json(score)
    else:
        _print(score)
    return 0 if score.is_good else 1


class Told:
    """SIGTERM and SIGINT, of which the first ends a storm. Others do nothing: they would cut short what it began."""

    def __init__(self) -> None:
        self.is_ending = False
        """Whether the storm is about to end."""
        self._cancel: Callable[[], object] | None = None

    @contextmanager
    def heard(self) -> Generator[None]:
        """Hear them for the length of the block."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def unless_told(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something until the first signal. Nothing is raised in the middle of a callback, whose caller would keep
        it for a fault of the callback.

        Raises:
            KeyboardInterrupt: there was one.
        """
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            self._cancel = None

    def _on_signal(self, number: int, frame: object) -> None:
        if self.is_ending:
            return
        self.is_ending = True
        if self._cancel is None:
            raise KeyboardInterrupt
        self._cancel()


@contextmanager
def _platform(asked: Asked, folder: Path) -> Generator[tuple[ChaosPlatform | RunningPlatform, list[str]]]:
    """The platform that is harmed, which is not started yet, or one that runs already; with what is to be told of it.

    Raises:
        CannotLoad: sagas or participants are not as they must be, or there is no PostgreSQL.
        PlatformError: no platform runs there.
    """
    if asked.running is not None:
        lines = [
            f"the platform in {asked.running} is harmed by {', '.join(POSSIBLE)} alone, and judged by the sagas that "
            "are started here"
        ]
        yield RunningPlatform(asked.running), lines
        return
    with _settings(asked) as settings:
        runs = {("exporter", "otlp"): settings.exporter, ("read model", "sqlite"): settings.readmodel}
        lines = [
            f"no {name} runs: it is switched off, or the extra {extra} is not installed"
            for (name, extra), does in runs.items()
            if not does
        ]
        yield ChaosPlatform(folder, settings), lines


@contextmanager
def _folder(asked: Asked) -> Generator[Path]:
    """Where everything is kept; for a schedule that is only printed, somewhere for a moment."""
    if asked.plan:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        yield asked.folder or Path(".antiphon") / f"chaos-{time.strftime('%Y%m%d-%H%M%S')}"


def _can_fill(asked: Asked) -> bool:
    """Whether databases get small disks.

    Raises:
        PlatformError: they were asked for, and are not possible here.
    """
    if asked.small_disks is False:
        return False
    if not (why := why_not()):
        return True
    if asked.small_disks or "fill" in asked.only:
        raise PlatformError(f"a fault of the kind fill is not possible here: {why}")
    return False


@contextmanager
def _settings(asked: Asked) -> Generator[Settings]:
    """What the platform consists of; a PostgreSQL that was asked for runs meanwhile.

    Raises:
        CannotLoad: there is no PostgreSQL.
    """
    apps, participants = asked.app, asked.participant
    if not apps and not participants:
        apps, participants = [asked.style.saga], [*asked.style.participants.values()]
    given = (text.partition("=") for text in asked.database)
    databases = {name: url for name, _, url in given}
    found = [*parts_of(apps)[1], *(load(path, Participant).name for path in participants)]
    workers = dict.fromkeys(found, asked.workers)
    settings = Settings(
        apps,
        participants,
        asked.servers,
        asked.coordinators,
        workers,
        databases,
        asked.handler_seconds,
        exporter=can_export() if asked.exporter is None else asked.exporter,
        readmodel=can_list() if asked.readmodel is None else asked.readmodel,
        small_disks=_can_fill(asked),
        streams=asked.streams,
    )
    if POSTGRES not in databases.values():
        yield settings
        return
    from ..local.postgres import postgres

    with ExitStack() as ending:
        try:
            server = ending.enter_context(postgres())
        except LookupError as error:
            raise CannotLoad(f"{error}.") from None
        databases |= {name: server.new_database() for name, url in databases.items() if url == POSTGRES}
        yield replace(settings, postgres=server)


def _targets(asked: Asked, chaos: ChaosPlatform | RunningPlatform) -> Targets:
    """What the sagas that are run come by."""
    if not isinstance(chaos, ChaosPlatform):
        return chaos.targets
    return chaos.targets_of([*with_children([_saga(asked).definition])]) if asked.app else chaos.targets


def _schedule(asked: Asked, targets: Targets, seed: int) -> Schedule:
    if asked.schedule is not None:
        return read(asked.schedule, targets)
    minutes = asked.minutes if asked.minutes or asked.faults else 1.0
    kinds = asked.only or [kind for kind in KINDS if kind not in {*asked.without, *impossible(targets)}]
    return make(seed, targets, count=asked.faults, seconds=minutes * 60, every=asked.every, kinds=kinds)


def _missing(asked: Asked, targets: Targets) -> list[str]:
    """The kinds of faults that were asked for, since nobody left them out, and are not possible here, in sentences."""
    if asked.schedule is not None or asked.only or asked.running is not None:
        return []
    left_out: set[Kind] = {*asked.without}
    left_out |= {"outage"} if asked.servers == 1 else set()
    left_out |= {"fill"} if asked.small_disks is False else set()
    reasons = {kind: why for kind, why in impossible(targets).items() if kind not in left_out}
    if "fill" in reasons:
        reasons["fill"] = why_not() or reasons["fill"]
    return [
        f"no fault of the kind {kind} is possible here, which fails this run: {why.rstrip('.')}. --without {kind} "
        "leaves that kind out."
        for kind, why in reasons.items()
    ]


def _about(asked: Asked, targets: Targets) -> list[tuple[str, str]]:
    """What was run where, for a document that is kept."""
    what = ", ".join([*asked.app, *asked.participant]) or f"the order system, {asked.style.value}"
    what = f"what runs in {asked.running}" if asked.running is not None else what
    return [
        ("when it ended", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())),
        ("what was run", f"{what}{f', sagas of type {asked.saga}' if asked.saga else ''}; {asked.at_once} at a time"),
        ("servers", f"{len(targets.servers)}{_pairs(asked)}"),
        ("processes", ", ".join(targets.processes)),
        ("versions", f"Antiphon {version('antiphon')}, Python {platform.python_version()}, {_server_version()}"),
        ("machine", f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"),
    ]


def _pairs(asked: Asked) -> str:
    """How many pairs of streams there are, where that is not one."""
    return f", {asked.streams} pairs of streams" if asked.streams > 1 else ""


def _server_version() -> str:
    """What the nats-server that runs says of its version."""
    told = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, check=False)
    return told.stdout.strip()


def _load(asked: Asked, seed: int, chaos: ChaosPlatform | RunningPlatform) -> Load:
    """What is run.

    Raises:
        CannotLoad: it is not said with what, or which saga is meant.
    """
    ids = f"storm-{seed}"
    if not chaos.is_own:
        ids = f"{ids}-{time.time_ns() // 10**6:x}"  # others may have had the same storm there
        style = next((each for each in Style if [each.saga] == chaos.sagas), None)
        if style is not None and asked.payload is None and not asked.load:
            return Orders(style, seed, ids)
        asked = replace(asked, app=chaos.sagas)
    if not asked.app and not asked.participant:
        if asked.payload is not None or asked.load:
            option = "--payload" if asked.payload is not None else "--load"
            raise WrongValue(f"{option} is for sagas of your own, which --app names; the order system has its orders.")
        return Orders(asked.style, seed)
    if asked.load:
        if asked.payload is not None:
            raise WrongValue("--payload and --load both say what is run; give one of them.")
        return _load_of_a_team(asked.load, seed)
    saga = _saga(asked)
    if asked.payload is None:
        raise CannotLoad(
            f"it is not said what sagas of type {saga.name} begin with: --payload FILE, a JSON object in each line, or "
            "--load MODULE:CLASS."
        )
    lines = read_given(f"@{asked.payload}")[0].decode().splitlines()
    return Payloads(saga, [read_event(line, saga.start) for line in lines if line.strip()], ids)


def _load_of_a_team(path: str, seed: int) -> Load:
    """What a class of a team's own makes of the seed.

    Raises:
        CannotLoad: there is no such class, or it cannot be made of a seed.
    """
    found: type[Any] = load(path, type)
    make: Any = found  # what it takes beside the seed is its own matter, and looked at here
    if not issubclass(found, Load) or isabstract(found):
        raise CannotLoad(
            f"{path} is no load: derive it from antiphon.deploy.chaos.Load, and say in `next` what is started."
        )
    try:
        made: Load = make(seed)
    except TypeError as error:
        raise CannotLoad(f"{path} cannot be made of a seed: {error}.") from None
    return made


def _saga(asked: Asked) -> AnySaga:
    sagas = {saga.name: saga for saga in map(load_saga, parts_of(asked.app)[0])}
    if asked.saga in sagas:
        return sagas[asked.saga]
    if asked.saga or len(sagas) != 1:
        raise WrongValue(f"say with --saga which sagas to run: {', '.join(sagas) or 'there is none'}.")
    return next(iter(sagas.values()))


def _print_schedule(schedule: Schedule, *, json: bool) -> None:
    if json:
        say_json(schedule)
    else:
        say_document(as_toml(schedule))


def _print(score: Score) -> None:
    out = console()
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("fault", "times", "next saga", "under way", "process"):
        table.add_column(heading, justify="left" if heading == "fault" else "right")
    for row in score.rows:
        table.add_row(row.sort, f"{row.faults}", *map(_seconds, (row.next_saga, row.under_way, row.process)))
    out.print(table)
    outcomes = ", ".join(f"{number} {outcome}" for outcome, number in score.outcomes.items())
    say(
        "Seconds since a fault began, p50 / max: until a saga that began after it had ended, until all had ended that",
        "were under way, and until the processes that it ended served again. Faults that overlap share what they cost.",
        "",
        f"{outcomes}; {score.rate:g} sagas/s over {score.seconds:g} s; seed {score.seed}; the machine's load is "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
    )
    for line in score.impossible:
        out.print(foreign(line, "red"), soft_wrap=True)
    for line in score.told.splitlines():
        out.print(foreign(line), soft_wrap=True)
    say(score.last_line)


def _seconds(spread: Spread | None) -> str:
    return str(spread) if spread is not None else "-"

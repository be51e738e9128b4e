"""`antiphon up`: the local platform in the foreground."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from antiphon.contracts.counting import counted
from antiphon.coordinator.definition.capabilities import capabilities_of, participants_of
from antiphon.coordinator.definition.choreography import Choreography
from antiphon.coordinator.definition.saga import Saga
from antiphon.flow.check import lacking
from antiphon.flow.graph import Part, build
from antiphon.link.process import STOP_SIGNALS, told_to_stop
from antiphon.participants import Participant
from antiphon.participants.databases import open_database

from ..modules import CannotLoad, WrongValue, found_in, load, load_saga
from ..render.terminal import console, parts
from .children import Say
from .platform import LocalPlatform
from .styles import Style

STANDS_STILL: Final = re.compile(
    r"\[(?:warning|error) *\] ((?:saga\.parked|fact\.parked|coordinator\.lacks_definition)\b.*)"
)
"""Lines of a log that say why a saga does not go on."""

SAID_MAX: Final = 20
"""So many of them are said on the terminal."""

COLOURS: Final = ("cyan", "green", "yellow", "magenta", "blue", "red")


async def run_platform(
    sagas: Sequence[str],
    participants: Sequence[str],
    coordinators: int,
    folder: Path,
    port: int,
    jaeger: str = "",
    http: str = "",
    *,
    databases: Sequence[str] = (),
    incompatible_contracts: bool = False,
    command: Sequence[str] = (),
    pairs: int = 0,
) -> int:
    """Run the platform until a signal, or until a command has run on it, then drain it. Without sagas and participants
    it is the order example's.

    Args:
        sagas, participants, coordinators, folder, port, jaeger, http, incompatible_contracts, pairs: as of
            `LocalPlatform`.
        command: a program with its arguments, which finds the server by NATS_URL. While there is one, what processes
            write goes to their logs; the terminal has why sagas stand still.

    Returns:
        The exit code: the command's; 128 and the signal's number where one ended it; 0 without a command.

    Raises:
        CannotLoad: there is no such program, saga or participant.
        PlatformError: a process does not start, or cannot; the sentence says why.
    """
    if not sagas and not participants:
        sagas, participants = [Style.ORCHESTRATED.saga], [*Style.ORCHESTRATED.participants.values()]
    # Loaded here only to be refused here, with one sentence, rather than in children that die again and again.
    sagas, found = parts_of(sagas)
    by_name = {**found, **{load(path, Participant).name: path for path in participants}}
    _require_program(command)
    _require_complete(sagas, by_name)
    say = speaker(console())
    platform = LocalPlatform(
        folder,
        sagas,
        by_name,
        Warned(say) if command else say,
        say,
        databases=databases_of(databases, by_name),
        coordinators=coordinators,
        port=port,
        jaeger=jaeger,
        http=http,
        incompatible_contracts=incompatible_contracts,
        pairs=pairs,
    )
    told = told_to_stop((*STOP_SIGNALS, signal.SIGHUP))  # Ctrl-C, SIGTERM, the end of the terminal
    waiting = asyncio.create_task(told.wait())
    code = 1 if command else 0  # until it has run
    try:
        starting = asyncio.create_task(platform.start())
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            for child in platform.children.values():
                say(child.name, f"runs as process {child.pid}")
            say(
                "up",
                f"ready: {counted(len(platform.children), 'process', 'processes')}, logs in {platform.logs}; "
                f"{_what_next(command)}",
            )
            for line in _unanswered(sagas, by_name):
                say("up", line)
            if jaeger:
                say("up", f"every saga's trace goes to Jaeger; look at {jaeger}")
            code = await _run_on(platform, command, waiting) if command else 0
        if not command:
            await waiting
        starting.cancel()
        say("up", "draining")
    finally:
        waiting.cancel()
        await platform.stop()
    say("up", f"ended; streams and databases stay in {platform.folder}")
    return code


def _require_complete(sagas: Iterable[str], participants: Mapping[str, str]) -> None:
    """Refuse sagas for which a participant that is to run here has no handler, or no reaction: they would stand still.

    Raises:
        CannotLoad: something is missing; a sentence for each.
    """
    parts: list[Part] = [*map(load_saga, sagas), *(load(path, Participant) for path in participants.values())]
    if found := lacking(build(parts), participants):
        raise CannotLoad(" ".join(["these sagas cannot run:", *(finding.sentence for finding in found)]))


class Warned:
    """Says of what processes write the lines that tell an author why sagas stand still, each reason once.

    Args:
        say: called with the name of the process, and such a line without its time.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said = set[str]()

    def __call__(self, name: str, line: str) -> None:
        found = STANDS_STILL.search(line)
        if found is None or len(self._said) > SAID_MAX:
            return
        reason = re.sub(r" ?\b(saga|trace_id|trace|subject)=\S+", "", found[1])
        if reason in self._said:
            return
        self._said.add(reason)
        more = len(self._said) > SAID_MAX
        self._say(name, "more stands still; its log says what" if more else " ".join(found[1].split()))


def _unanswered(sagas: Iterable[str], participants: Iterable[str]) -> Iterator[str]:
    """Of each saga whom it needs and who does not run here, in a sentence."""
    here = set(participants)
    for path in sagas:
        saga = load_saga(path)
        if missing := sorted(participants_of(capabilities_of([saga.definition]).sagas) - here):
            who, one = " and ".join(missing), len(missing) == 1
            yield (
                f"{who} {'does' if one else 'do'} not run here, and saga {saga.name} waits for "
                f"{'it' if one else 'them'}: add --participant MODULE:PARTICIPANT, or start "
                f"{'it' if one else 'them'} by antiphon participant"
            )


def _what_next(command: Sequence[str]) -> str:
    return f"running {shlex.join(command)}" if command else "Ctrl-C drains and ends all"


def _require_program(command: Sequence[str]) -> None:
    """Refuse a command that could not be run, before anything is started for it."""
    if command and shutil.which(command[0]) is None:
        raise CannotLoad(
            f"there is no program {command[0]!r} to run on the platform. Sagas are named with --app, participants with "
            "--participant."
        )


async def _run_on(platform: LocalPlatform, command: Sequence[str], told: asyncio.Task[object]) -> int:
    """Run a command on a platform that serves. Who ends the platform ends the command."""
    process = await asyncio.create_subprocess_exec(*command, env=platform.environment())
    ending = asyncio.create_task(process.wait())
    await asyncio.wait({ending, told}, return_when=asyncio.FIRST_COMPLETED)
    if process.returncode is None:
        process.terminate()
    code = await ending
    return code if code >= 0 else 128 - code


def parts_of(apps: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The sagas, and the participants by their names, that are named by `module:saga`, a module or a package, each as
    `module:attribute`.

    Raises:
        CannotLoad: one names no saga and no participant.
    """
    sagas: list[str] = []
    participants: dict[str, str] = {}
    for path in apps:
        if ":" in path:
            load_saga(path)
            sagas.append(path)
            continue
        found = found_in(path, (Saga, Choreography, Participant))
        if not found:
            raise CannotLoad(f"{path} has neither a saga, nor a choreography, nor a participant.")
        participants |= {part.name: at for at, part in found.items() if isinstance(part, Participant)}
        sagas += [at for at, part in found.items() if not isinstance(part, Participant)]
    return sagas, participants


def databases_of(texts: Sequence[str], participants: Iterable[str]) -> dict[str, str]:
    """The URLs of databases by participant, of `NAME=URL`. What may be a secret is never quoted.

    Raises:
        CannotLoad: a text is none, or names nobody.
        PlatformError: a database cannot be opened by this installation.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, url = text.partition("=")
        if not equals or "://" in name or not url:
            raise WrongValue("--database is NAME=URL, as in payments=postgresql://shop@localhost/payments.")
        if name not in participants:
            raise CannotLoad(f"there is no participant {name!r} to give a database to: {', '.join(participants)}.")
        open_database(url)
        found[name] = url
    return found


def speaker(out: Console) -> Say:
    """Prints lines with the name of the process in front, in its own colour."""
    colours: dict[str, str] = {}

    def say(name: str, line: str) -> None:
        colour = colours.setdefault(name, COLOURS[len(colours) % len(COLOURS)])
        out.print(parts((f"{name:<14}", colour), "| ", line), soft_wrap=True)

    return say

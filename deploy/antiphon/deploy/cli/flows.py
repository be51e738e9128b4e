"""What the commands about the flow print."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from antiphon.contracts.registration import Capabilities
from antiphon.contracts.subjects import REGISTRATIONS_FILTER
from antiphon.contracts.topology import REGISTRATIONS
from antiphon.coordinator.definition.choreography import Choreography
from antiphon.coordinator.definition.saga import Saga
from antiphon.coordinator.reading.pauses import read_pauses
from antiphon.coordinator.views.parked import waiting_pauses
from antiphon.coordinator.views.pauses import Pauses
from antiphon.flow.check import WHERE_IT_RUNS, Finding, check
from antiphon.flow.draw import as_dot, as_json, as_mermaid
from antiphon.flow.graph import Flow, Part, assemble, build, capabilities_of
from antiphon.flow.haste import hasty
from antiphon.flow.lookup import About, who
from antiphon.flow.running import Running, check_running, compare_running, read_running, together
from antiphon.flow.svg import as_svg
from antiphon.participants.participant import Participant

from ..files import told_if_unwritable
from ..modules import CannotLoad, found_in, load
from ..render.terminal import say, say_document, say_json
from .sagas import reader

KINDS = (Saga, Choreography, Participant)


def load_parts(paths: Sequence[str]) -> list[Part]:
    """The sagas, choreographies and participants at `module:attribute`, or all that a module or a package has.

    Raises:
        CannotLoad: a path names nothing of that kind.
    """
    if not paths:
        raise CannotLoad(
            "nothing to look at: name modules with --app, for instance --app antiphon.order.saga, or what runs with "
            "--server."
        )
    found: dict[int, Part] = {}
    for path in paths:
        for part in _parts_at(path):
            found[id(part)] = part
    return list(found.values())


def _parts_at(path: str) -> list[Part]:
    if ":" in path:
        part: object = load(path, object)
        if not isinstance(part, KINDS):
            raise CannotLoad(f"{path} is a {type(part).__name__}, not a saga, a choreography or a participant.")
        return [part]
    parts: list[Part] = [*found_in(path, KINDS).values()]
    if not parts:
        raise CannotLoad(f"{path} has neither a saga, nor a choreography, nor a participant.")
    return parts


def draw_flow(apps: Sequence[str], server: str, format: str, saga: str, output: Path | None) -> None:
    """Print the flow, or write it to a file."""
    flow = _within(_flow(apps, server), saga)
    match format:
        case "svg":
            drawn = as_svg(flow)
        case "dot":
            drawn = as_dot(flow)
        case "json":
            drawn = as_json(flow).decode() + "\n"
        case _:
            drawn = as_mermaid(flow)
    if output is None:
        say_document(drawn)
    else:
        with told_if_unwritable("the flow", output):
            output.write_text(drawn)


def _flow(apps: Sequence[str], server: str) -> Flow:
    """The flow of the source, of what runs, or of both together."""
    if not server:
        return build(load_parts(apps))
    running, _ = asyncio.run(look(server))
    return together(capabilities_in(apps), running) if apps else running.flow


def capabilities_in(apps: Sequence[str]) -> list[Capabilities]:
    """What the parts at these paths do."""
    return list(map(capabilities_of, load_parts(apps)))


async def look(server: str) -> tuple[Running, Pauses]:
    """What runs on a server, by what it says of itself, and what of it stands still."""
    async with reader(server) as link:
        stored = [(each.subject, each.data) async for each in link.scan(REGISTRATIONS.name, REGISTRATIONS_FILTER)]
        return read_running(stored), await read_pauses(link)


def _within(flow: Flow, saga: str) -> Flow:
    if not saga:
        return flow
    known = sorted({node.owner for node in flow.of_kind("end")})
    if saga not in known:
        raise CannotLoad(f"there are no sagas of type {saga!r} here; there are {', '.join(known) or 'none'}.")
    return flow.within(saga)


def tell_who(apps: Sequence[str], server: str, message: str, as_json_: bool) -> None:
    """Print all about one message."""
    found = who(_flow(apps, server), message)
    if as_json_:
        say_json(found)
    else:
        say(*[line for about in found for line in ("", *_told(about))][1:])


def _told(about: About) -> list[str]:
    owner = f" of {about.owner}" if about.owner != "client" else " from outside"
    lines = [f"{about.message}: {about.kind}{owner}"]
    for heading, phrases in (
        ("emitted by", about.emitted_by or ("nobody",)),
        ("handled by", about.handled_by or ("nobody",)),
        ("then", about.then or ("nothing more",)),
        ("compensated by", about.compensated_by),
    ):
        lines += [f"  {heading if not place else '':<16}{phrase}" for place, phrase in enumerate(phrases)]
    return lines


def check_flow(apps: Sequence[str], server: str, as_json_: bool) -> int:
    """Print what is wrong with the flow; the exit code."""
    flow, findings = _checked(apps, server)
    if as_json_:
        say_json(findings)
    elif findings:
        say(*(f"{finding.mistake}: {finding.sentence}" for finding in findings))
    else:
        counts = {kind: len(flow.of_kind(kind)) for kind in ("event", "command", "compensation", "handler")}
        found = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items())
        say(f"nothing is amiss: {found}.")
    return 1 if findings else 0


def _checked(apps: Sequence[str], server: str) -> tuple[Flow, list[Finding]]:
    """What was looked at, and what is wrong: with the source, with what runs, or with both and between them."""
    if not server:
        flow = build(load_parts(apps))
        return flow, [*check(flow), *_hasty(apps)]
    running, pauses = asyncio.run(look(server))
    own = [*check_running(running), *_paused(pauses)]
    if not apps:
        return running.flow, own + (check(running.flow, WHERE_IT_RUNS) if running.registrations else [])
    source = capabilities_in(apps)
    flow = assemble(source)
    return flow, list(dict.fromkeys([*check(flow), *_hasty(apps), *own, *compare_running(source, running)]))


def _paused(pauses: Pauses) -> list[Finding]:
    return [Finding("paused", each.subject, f"{each.subject} is {each.reason}.") for each in waiting_pauses(pauses)]


def _hasty(apps: Sequence[str]) -> list[Finding]:
    """The steps that give up too early; how long they wait is known from their source alone."""
    return list(hasty(part.definition for part in load_parts(apps) if not isinstance(part, Participant)))

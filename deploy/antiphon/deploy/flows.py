"""What the commands about the flow print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import typer

from antiphon.coordinator.choreography import Choreography
from antiphon.coordinator.saga import Saga
from antiphon.flow.check import check
from antiphon.flow.draw import as_dot, as_json, as_mermaid
from antiphon.flow.graph import Flow, Part, build
from antiphon.flow.svg import as_svg
from antiphon.flow.who import About, who
from antiphon.participants.participant import Participant

from .modules import CannotLoad, load, load_module

KINDS = (Saga, Choreography, Participant)


def load_parts(paths: Sequence[str]) -> list[Part]:
    """The sagas, choreographies and participants at `module:attribute`, or all that a `module` has.

    Raises:
        CannotLoad: a path names nothing of that kind.
    """
    if not paths:
        raise CannotLoad("nothing to look at: name modules with --app, for instance --app antiphon.order.saga.")
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
    parts: list[Part] = [value for value in vars(load_module(path)).values() if isinstance(value, KINDS)]
    if not parts:
        raise CannotLoad(f"{path} has neither a saga, nor a choreography, nor a participant.")
    return parts


def draw_flow(apps: Sequence[str], format: str, saga: str, output: Path | None) -> None:
    """Print the flow, or write it to a file."""
    flow = _within(build(load_parts(apps)), saga)
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
        typer.echo(drawn, nl=False)
    else:
        output.write_text(drawn)


def _within(flow: Flow, saga: str) -> Flow:
    if not saga:
        return flow
    known = sorted({node.owner for node in flow.of_kind("end")})
    if saga not in known:
        raise CannotLoad(f"there are no sagas of type {saga!r} here; there are {', '.join(known) or 'none'}.")
    return flow.within(saga)


def tell_who(apps: Sequence[str], message: str, as_json_: bool) -> None:
    """Print all about one message."""
    found = who(build(load_parts(apps)), message)
    if as_json_:
        typer.echo(msgspec.json.encode(found))
    else:
        typer.echo("\n\n".join(_told(about) for about in found))


def _told(about: About) -> str:
    owner = f" of {about.owner}" if about.owner != "client" else " from outside"
    lines = [f"{about.message}: {about.kind}{owner}"]
    for heading, phrases in (
        ("emitted by", about.emitted_by or ("nobody",)),
        ("handled by", about.handled_by or ("nobody",)),
        ("then", about.then or ("nothing more",)),
        ("compensated by", about.compensated_by),
    ):
        lines += [f"  {heading if not place else '':<16}{phrase}" for place, phrase in enumerate(phrases)]
    return "\n".join(lines)


def check_flow(apps: Sequence[str], as_json_: bool) -> int:
    """Print what is wrong with the flow; the exit code."""
    flow = build(load_parts(apps))
    findings = check(flow)
    if as_json_:
        typer.echo(msgspec.json.encode(findings))
    elif findings:
        typer.echo("\n".join(f"{finding.mistake}: {finding.sentence}" for finding in findings))
    else:
        counts = {kind: len(flow.of_kind(kind)) for kind in ("event", "command", "compensation", "handler")}
        found = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items())
        typer.echo(f"nothing is amiss: {found}.")
    return 1 if findings else 0

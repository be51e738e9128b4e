"""What runs, by what processes say of themselves: its flow, what is wrong with that, and how the source differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import msgspec

from antiphon.contracts.errors import Unusable
from antiphon.contracts.identity import COORDINATOR
from antiphon.contracts.registration import (
    Capabilities,
    Handled,
    Named,
    Reacted,
    Registration,
    ServedSaga,
    TakenBack,
    claims,
    honest,
    read_registration,
)

from .check import Finding, owners
from .graph import Flow, assemble

NOT_RUNNING = "(not running)"
NOT_IN_SOURCE = "(not in the source)"


class Running(msgspec.Struct, frozen=True):
    """The registrations that could be read, by name and instance, and a sentence for each that could not."""

    registrations: tuple[Registration, ...]
    unreadable: tuple[tuple[str, str], ...]
    """Subject, and why."""

    @property
    def honest(self) -> list[Registration]:
        """All of them, without what they do not own."""
        return [honest(each) for each in self.registrations]

    @property
    def flow(self) -> Flow:
        """Who says what to whom on the platform, with how many processes do it."""
        counts: Counter[str] = Counter()
        for each in self.honest:
            nodes = assemble([each]).of_kind("handler", "step")
            counts.update(node.id for node in nodes)
        return noted(assemble(self.honest), {id: f"×{count}" for id, count in counts.items()})


def read_running(stored: Iterable[tuple[str, bytes]]) -> Running:
    """Read what the bucket holds: subjects and bytes, of which the empty ones say that somebody has gone."""
    found: list[Registration] = []
    unreadable: list[tuple[str, str]] = []
    for subject, data in stored:
        try:
            if data:
                found.append(read_registration(subject, data))
        except Unusable as error:
            unreadable.append((subject, str(error)))
    return Running(tuple(sorted(found, key=lambda each: (each.name, each.instance))), tuple(sorted(unreadable)))


def noted(flow: Flow, notes: Mapping[str, str]) -> Flow:
    """The same flow with something said beside nodes."""
    nodes = {id: msgspec.structs.replace(node, note=notes.get(id, node.note)) for id, node in flow.nodes.items()}
    return msgspec.structs.replace(flow, nodes=nodes)


def together(source: Sequence[Capabilities], running: Running) -> Flow:
    """What is in the source and what runs in one flow; what is only in one of them says so."""
    ours, theirs = assemble(source), running.flow
    notes = {id: node.note for id, node in theirs.nodes.items()}
    notes |= {node.id: NOT_RUNNING for node in ours.of_kind("handler", "step") if node.id not in theirs.nodes}
    for node in theirs.of_kind("handler", "step"):
        if node.id not in ours.nodes:
            notes[node.id] = f"{node.note} {NOT_IN_SOURCE}"
    return noted(assemble([*source, *running.honest]), notes)


# --- what is wrong with what runs -------------------------------------------------------------------------------------


def check_running(running: Running) -> list[Finding]:
    """What processes say that they must not, or that contradicts what others say."""
    return [
        *_nobody(running),
        *_unreadable(running),
        *_cut(running),
        *_claimed(running),
        *_shapes(running),
    ]


def _nobody(running: Running) -> Iterator[Finding]:
    if not running.registrations:
        yield Finding(
            "nobody",
            "",
            "no process has said on this server what it does. Start coordinators and participants; those that run and "
            "say nothing have logged why (registration.failed), or are older than that.",
        )


def _unreadable(running: Running) -> Iterator[Finding]:
    for subject, why in running.unreadable:
        yield Finding(
            "unreadable",
            subject,
            f"what stands at {subject} is no registration: {why}. contracts/README.md says what it must look like.",
        )


def _cut(running: Running) -> Iterator[Finding]:
    for each in running.registrations:
        if each.cut:
            yield Finding("cut", _name(each), f"{_name(each)} does not say all that it does: {each.cut}")


def _claimed(running: Running) -> Iterator[Finding]:
    for each in running.registrations:
        for claim in claims(each):
            yield Finding(
                "claimed",
                _name(each),
                f"{_name(each)} says that it {claim.what}, which is for {claim.owner} to do, so it is left out here. "
                f"Find out who runs it: only a process that may write as {each.name} can have said so.",
            )


def _shapes(running: Running) -> Iterator[Finding]:
    served: dict[tuple[str, int], dict[str, list[str]]] = {}
    for each in running.honest:
        for saga in each.sagas:
            served.setdefault((saga.name, saga.version), {}).setdefault(saga.shape, []).append(_name(each))
    for (name, version), shapes in sorted(served.items()):
        if len(shapes) > 1:
            told = " and ".join(f"{shape} ({', '.join(by)})" for shape, by in sorted(shapes.items()))
            yield Finding(
                "two shapes",
                f"{name}.v{version}",
                f"coordinators serve saga {name} v{version} in different shapes: {told}. A saga in flight is taken on "
                f"only by those that have its shape: give the newer one version={version + 1}, and serve both "
                "everywhere.",
            )


def _name(registration: Registration) -> str:
    return f"{registration.name}.{registration.instance}"


# --- how it differs from the source -----------------------------------------------------------------------------------


def compare_running(source: Sequence[Capabilities], running: Running) -> list[Finding]:
    """What is in the source and does not run, runs and is not in the source, or is another version there."""
    by_name = _by_name(running.honest)
    ours = _by_name(each for each in source if each.name != COORDINATOR)
    cut = {each.name for each in running.registrations if each.cut}
    return [
        *owners(assemble([*source, *running.honest])),
        *(f for name, mine in ours.items() for f in _participant(name, mine, by_name.get(name, []), name in cut)),
        *(_foreign(name) for name in by_name if name not in (COORDINATOR, *ours)),
        *_sagas(source, by_name.get(COORDINATOR, []), COORDINATOR in cut),
    ]


def _by_name(capabilities: Iterable[Capabilities]) -> dict[str, list[Capabilities]]:
    ordered = sorted(capabilities, key=lambda each: each.name)
    return {name: list(group) for name, group in groupby(ordered, key=lambda each: each.name)}


def _foreign(name: str) -> Finding:
    return Finding(
        "not in the source",
        name,
        f"participant {name} runs and is not in the source. Name its module with --app, or stop its processes.",
    )


Taken = tuple[str, str, str]
"""What is taken: the kind of message, its type without the version, and in which sagas."""


def _participant(name: str, source: list[Capabilities], running: list[Capabilities], is_cut: bool) -> Iterator[Finding]:
    if not running:
        yield Finding(
            "not running",
            name,
            f"participant {name} is in the source and does not run. Start it (antiphon participant MODULE:{name}); if "
            "it runs, have it say so: its log says why it could not (registration.failed).",
        )
        return
    ours, theirs = _taken(source), _taken(running)
    for what in sorted({*ours} | {*theirs}):
        mine, other = ours.get(what), theirs.get(what)
        if other is None and not is_cut:
            yield Finding(
                "not running",
                _told(what, mine),
                f"{_told(what, mine)} is handled by {name} in the source, and by no process of it that runs. "
                "Deploy the newer program, or name the module that runs with --app.",
            )
        elif mine is None:
            yield Finding(
                "not in the source",
                _told(what, other),
                f"{_told(what, other)} is handled by {name} where it runs, and not in the source. Deploy the newer "
                "program once nobody sends it any more, or put the handler back.",
            )
        elif other is not None and mine != other:
            yield Finding(
                "other version",
                _told(what, mine),
                f"{name} takes {_versions(other)} where it runs, and {_versions(mine)} in the source. Whoever "
                "reads must take both for that long: see `antiphon contracts check`, then deploy the newer program.",
            )


def _taken(capabilities: Iterable[Capabilities]) -> dict[Taken, frozenset[tuple[str, ...]]]:
    """All that is taken, with the versions in which, and what is published then."""
    found: dict[Taken, set[tuple[str, ...]]] = {}
    for each in capabilities:
        for entry in each.entries():
            match entry:
                case Handled():
                    _add(found, "command", entry.command, "", [entry.reply])
                case TakenBack():
                    _add(found, "compensation", entry.compensation, "", [])
                case Reacted():
                    said = [*entry.emits, *([entry.refused] if entry.refused else [])]
                    _add(found, "event", entry.event, entry.saga_type, said)
                case ServedSaga():
                    pass
    return {what: frozenset(versions) for what, versions in found.items()}


def _add(
    found: dict[Taken, set[tuple[str, ...]]], kind: str, message: Named, saga: str, published: Iterable[Named]
) -> None:
    versions = found.setdefault((kind, message.contract.name, saga), set())
    versions.add((message.type, *sorted(each.type for each in published)))


def _told(what: Taken, versions: frozenset[tuple[str, ...]] | None) -> str:
    kind, name, saga = what
    types = sorted({each[0] for each in versions or ()}) or [name]
    return f"{kind} {' and '.join(types)}{f' in {saga}' if saga else ''}"


def _versions(versions: frozenset[tuple[str, ...]]) -> str:
    return " and ".join(taken + (f" (then {', '.join(then)})" if then else "") for taken, *then in sorted(versions))


def _sagas(source: Iterable[Capabilities], running: list[Capabilities], is_cut: bool) -> Iterator[Finding]:
    ours = {(saga.name, saga.version): saga for each in source for saga in each.sagas}
    theirs = {(saga.name, saga.version): saga for each in running for saga in each.sagas}
    newest = {name: max(v for n, v in ours if n == name) for name, _ in ours}
    for key in sorted({*ours} | {*theirs}):
        mine, other, label = ours.get(key), theirs.get(key), f"saga {key[0]} v{key[1]}"
        if other is None and not is_cut:
            yield Finding(
                "not running",
                label,
                f"{label} is in the source, and no coordinator serves it: what is started "
                f"{'waits' if mine is None or mine.is_led else 'is observed by nobody'}. Start coordinators with it "
                "(antiphon coordinator --app MODULE:SAGA).",
            )
        elif mine is None and key[1] >= newest.get(key[0], 0):  # an older one is kept until its sagas have ended
            yield Finding(
                "not in the source",
                label,
                f"{label} is served by coordinators and is not in the source. Name its module with --app, or stop "
                "serving it once none of its sagas is open.",
            )
        elif mine is not None and other is not None and mine.shape != other.shape:
            yield Finding(
                "other shape",
                label,
                f"{label} has the shape {other.shape} where it runs and {mine.shape} in the source. `antiphon diff` "
                f"says what is different: give the newer one version={key[1] + 1}, and serve both.",
            )

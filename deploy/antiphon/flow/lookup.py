"""The answer to "who handles this?": a message's emitters and handlers, what follows, and what takes it back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, assert_never

import msgspec

from antiphon.contracts import subjects
from antiphon.contracts.errors import AntiphonError
from antiphon.contracts.identity import dashed
from antiphon.contracts.messages import close_name, name_of
from antiphon.contracts.reader import answer_kind

from .graph import MESSAGES, RECEIVING, Edge, Flow, Node, reachable, step_id

_VERSION = re.compile(r"\.v[1-9][0-9]*$")

WHEN: Final = {
    "refused": "when it refuses",
    "exhausted": "when its attempts have run out",
    "superseded": "when a later command or a compensation has overtaken it",
    "closed": "when an operator resolves what became of",
}


class UnknownMessage(AntiphonError):
    """Nobody says or hears what was asked about. The sentence has what comes nearest."""


class About(msgspec.Struct, frozen=True):
    """All about one message, as phrases."""

    message: str
    kind: str
    owner: str
    emitted_by: tuple[str, ...]
    handled_by: tuple[str, ...]
    then: tuple[str, ...]
    compensated_by: tuple[str, ...]


def who(flow: Flow, asked: str) -> list[About]:
    """All about the messages that a subject, a type or a name means.

    Args:
        asked: a name (`inventory.reserve.failed`), a versioned type, either with dashes, a subject of EVENTS or of a
            command, or one of those answers of a command that have no class of their own (`payment.charge.refused`).

    Raises:
        UnknownMessage: there is no such message in the flow.
    """
    name, saga = _name_in(flow, asked)
    found = [node for node in flow.of_kind("event", "command", "compensation") if _is_called(node, name)]
    if found:
        told = [_about(flow, node, saga) for node in found]
        # A team may call an event as the platform calls an answer to another command.
        return ([each for each in told if each.emitted_by or each.handled_by] or told) + [
            each for each in _negative_answers(flow, name, saga) if each.handled_by
        ]
    answers = list(_negative_answers(flow, name, saga))
    if not answers:
        raise UnknownMessage(f"nobody says or hears {asked}. {_nearest(flow, name)}")
    return answers


def _name_in(flow: Flow, asked: str) -> tuple[str, str]:
    """The message a subject or a name means, and the saga type if the subject says one."""
    meant = subjects.parse_meant(asked)
    if meant is None:
        return asked, ""
    saga = meant.saga_type
    match meant.what:
        case "start":
            starts = [edge for edge in flow.after("client", "emits") if edge.saga == saga and _begins(flow, edge)]
            return (flow.nodes[starts[0].target].label, saga) if starts else (asked, saga)
        case "event":
            return meant.event, saga
        case "command":
            # A close has no name of its own in the flow: it is about the step's command.
            kind = "compensates" if meant.direction == "undo" else "emits"
            sent = [e.target.partition(":")[2] for e in flow.after(step_id(saga, meant.step)) if e.kind == kind]
            return (sent[0], saga) if sent else (asked, saga)
        case _:
            assert_never(meant.what)


def _begins(flow: Flow, edge: Edge) -> bool:
    """Whether it is a start that a client sends, and not a signal."""
    return not any(awaited.saga == edge.saga for awaited in flow.after(edge.target, "awaits"))


def _is_called(node: Node, name: str) -> bool:
    """By type or by name, with dots or with dashes."""
    type_ = node.id.partition(":")[2]
    names = {type_, _VERSION.sub("", type_)}
    return name in names | {dashed(each) for each in names}


# --- one message ------------------------------------------------------------------------------------------------------


def _about(flow: Flow, node: Node, saga: str) -> About:
    heard = [edge for edge in flow.after(node.id, *RECEIVING) if _may_be(edge, saga)]
    kind = "a failure" if node.is_failure else f"{'an' if node.kind == 'event' else 'a'} {node.kind}"
    return About(
        message=node.id.partition(":")[2],
        kind=kind,
        owner=node.owner,
        emitted_by=_unique(_emitter(flow, edge) for edge in flow.edges if _emits(flow, edge, node, saga)),
        handled_by=_unique(_hearer(flow, edge) for edge in heard),
        then=_unique(phrase for edge in heard for phrase in _then(flow, edge, saga)),
        compensated_by=_unique(_undoings(flow, node, saga)),
    )


def _emits(flow: Flow, edge: Edge, node: Node, saga: str) -> bool:
    """Whether an edge tells who publishes a message in sagas of a type: a handler does where its command is sent."""
    source = flow.nodes[edge.source]
    if edge.target != node.id or not _may_be(edge, saga):
        return False
    return not saga or source.kind != "handler" or source.is_reaction or saga in flow.asked_in(source.id)


def _emitter(flow: Flow, edge: Edge) -> str:
    source = flow.nodes[edge.source]
    match source.kind:
        case "client":
            return f"clients{_in(edge.saga)}"
        case "step":
            turned = ", when it is compensated" if edge.kind == "compensates" else ""
            return f"the coordinator, at step {source.label} of {source.owner}{turned}"
        case _:
            why = "refuses" if edge.label == "refused" else "has handled"
            return f"{source.label}, when it {why} {_listed(_heard_by(flow, source))}{_in(edge.saga)}"


def _hearer(flow: Flow, edge: Edge) -> str:
    target = flow.nodes[edge.target]
    match target.kind:
        case "step":
            return f"the coordinator, for step {target.caption} of {target.owner}"
        case "end":
            return f"the coordinator, which ends {target.label.replace(' ', ' as ', 1)}"
        case _:
            return f"{target.caption}{_in(edge.saga)}"


def _then(flow: Flow, edge: Edge, saga: str) -> Iterator[str]:
    """What whoever hears it sends in turn."""
    for following in flow.after(edge.target, "emits"):
        if _may_be(following, saga or edge.saga):
            message = flow.nodes[following.target]
            yield f"{message.label}{' if it refuses' if following.label == 'refused' else ''}{_to(flow, message, edge)}"


def _to(flow: Flow, message: Node, cause: Edge) -> str:
    heard = [flow.nodes[edge.target] for edge in flow.after(message.id, *RECEIVING) if _may_be(edge, cause.saga)]
    return f", which goes to {_listed(each.label for each in heard)}" if heard else ""


def _undoings(flow: Flow, node: Node, saga: str) -> Iterator[str]:
    """What takes back the effect that the message tells of, or asks for."""
    done = [edge.target for edge in flow.after(node.id, "handles")] if node.kind != "event" else []
    if not node.is_failure:
        done += [edge.source for edge in flow.before(node.id, "emits") if _may_be(edge, saga)]
    for handler in done:
        for edge in flow.before(handler, "compensates"):
            undoing = flow.nodes[edge.source]
            if undoing.kind == "handler" and _may_be(edge, saga):
                yield f"{undoing.label}, on {_listed(_heard_by(flow, undoing))}{_in(edge.saga)}"


# --- answers without a class of their own -----------------------------------------------------------------------------


def _negative_answers(flow: Flow, name: str, saga: str) -> Iterator[About]:
    version, token = _version_in(name), dashed(_VERSION.sub("", name))
    for node in flow.of_kind("command", "compensation"):
        type_ = node.id.partition(":")[2]
        kind = answer_kind("do" if node.kind == "command" else "undo", name_of(type_), token)
        if node.kind == "command" and answer_kind("close", close_name(name_of(type_)), token):
            kind = "closed"
        if kind not in WHEN or version not in ("", _version_in(type_)):
            continue
        about = _negative(flow, node, kind, saga)
        if about.handled_by or not saga:
            yield about


def _version_in(name: str) -> str:
    """The version in a type, as `.v1`; empty where a name has none."""
    found = _VERSION.search(name)
    return found.group() if found else ""


def _negative(flow: Flow, command: Node, answer: str, saga: str) -> About:
    steps = [
        flow.nodes[edge.source]
        for edge in flow.before(command.id, "emits", "compensates")
        if _may_be(edge, saga) and flow.nodes[edge.source].kind == "step"
    ]
    handlers = [flow.nodes[edge.target].label for edge in flow.after(command.id, "handles")]
    undone = [phrase for step in steps for phrase in _turned(flow, step)] if command.kind == "command" else []
    again = [f"{command.label} again later, for ever"] if command.kind == "compensation" else []
    if answer == "closed":  # no handler is called, and what follows is what the inbox says
        handlers, undone = [f"the inbox of {command.owner}"], list[str]()
    return About(
        message=f"{_VERSION.sub('', command.id.partition(':')[2])}.{answer}",
        kind=f"an answer to {command.label}",
        owner=command.owner,
        emitted_by=tuple(f"{handler}, {WHEN[answer]} {command.label}" for handler in handlers),
        handled_by=_unique(f"the coordinator, at step {step.label} of {step.owner}" for step in steps),
        then=_unique(undone or again),
        compensated_by=(),
    )


def _turned(flow: Flow, step: Node) -> Iterator[str]:
    """What is undone when a step says no: all that it comes after, the last first."""
    for id in reachable([step.id], lambda node: _earlier(flow, node, step.owner))[1:]:
        for edge in flow.after(id, "compensates"):
            if flow.nodes[id].kind == "step":
                message = flow.nodes[edge.target]
                yield f"{message.label}, which undoes step {flow.nodes[id].label}{_to(flow, message, edge)}"


def _earlier(flow: Flow, node: str, saga: str) -> Iterator[str]:
    kinds = ("follows", "starts") if flow.nodes[node].kind == "step" else ("emits", "handles")
    for edge in flow.before(node, *kinds):  # type: ignore[arg-type] # both are pairs of edge kinds
        if edge.saga in ("", saga) and flow.nodes[edge.source].kind != "client":
            yield edge.source


# --- words ------------------------------------------------------------------------------------------------------------


def _heard_by(flow: Flow, handler: Node) -> list[str]:
    return [flow.nodes[edge.source].label for edge in flow.before(handler.id, "handles")]


def _may_be(edge: Edge, saga: str) -> bool:
    return not saga or edge.saga in ("", saga)


def _in(saga: str) -> str:
    return f" ({saga})" if saga else ""


def _listed(names: Iterator[str] | list[str]) -> str:
    return " and ".join(dict.fromkeys(names))


def _unique(phrases: Iterator[str] | list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(phrases))


def _nearest(flow: Flow, name: str) -> str:
    """Messages that share the most with what was asked for."""
    words = set(re.split(r"[.-]", name))
    known = {node.label for node in flow.nodes.values() if node.kind in MESSAGES}
    ranked = sorted(known, key=lambda label: (-len(words & set(re.split(r"[.-]", label))), label))
    return f"There are {', '.join(ranked[:5])}." if ranked else "No messages are known: name modules with --app."

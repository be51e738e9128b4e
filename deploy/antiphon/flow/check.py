"""What is wrong with a flow before anything runs, each finding a sentence with the remedy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Literal

import msgspec

from antiphon.contracts.identity import CLIENT

from .graph import RECEIVING, SIGNAL, Edge, Flow, Node, Turn, reachable

Mistake = Literal[
    "unheard",
    "unsaid",
    "unhandled",
    "two handlers",
    "two owners",
    "two meanings",
    "cycle",
    "not compensated",
    "endless",
    "no reaction",
    "left out",
    "unknown saga",
    "hasty",
    "nobody",
    "unreadable",
    "cut",
    "claimed",
    "two shapes",
    "not running",
    "not in the source",
    "other version",
    "other shape",
    "paused",
]
"""unheard: emitted, and handled by nobody. unsaid: awaited, and emitted by nobody. unhandled: a command without a
handler. two meanings: an event has the name of an answer to a command. cycle: events that follow from each other, and
no end. not compensated: a failure, or another turn, after which an effect stays. endless: after it nothing more is
said, and it is no end. no reaction: a choreography says that somebody reacts, who does not. left out: somebody reacts,
and the choreography does not say so. unknown saga: a reaction hears sagas that nobody defines.
hasty: a step, or a saga, gives up before a worker that dies is replaced.

The others are about what runs. nobody: no process says what it does. unreadable: a registration that is none. cut: one
that leaves something out. claimed: one that says what is not for it to say. two shapes: coordinators differ about one
version of a saga. The four before the last are differences between what runs and the source. paused: a saga type or a
participant stands still."""

ANY = ""


class Finding(msgspec.Struct, frozen=True):
    """One mistake, and what to do about it."""

    mistake: Mistake
    about: str
    sentence: str


IN_SOURCE = "name the module that does with --app"
"""How what is missing may come in where a flow is read from source."""
WHERE_IT_RUNS = "start the process that does"


def check(flow: Flow, otherwise: str = IN_SOURCE) -> list[Finding]:
    """All that is wrong with a flow.

    Args:
        flow: what is known.
        otherwise: what to do where somebody has what is missing, and it is only not known here.
    """
    return [
        *owners(flow),
        *_two_meanings(flow),
        *_handlers(flow, otherwise),
        *_unknown_sagas(flow, otherwise),
        *_unheard(flow),
        *_unsaid(flow, otherwise),
        *_said_elsewhere(flow),
        *_cycles(flow),
        *(finding for saga in flow.choreographies for finding in _choreography(flow, saga, otherwise)),
        *(finding for saga in flow.turns for finding in _turned(flow, saga)),
    ]


def lacking(flow: Flow, here: Collection[str]) -> list[Finding]:
    """What sagas need of participants, and these participants do not provide, or provide twice: it would be waited for
    in vain. Of participants that are not named nothing is known.

    Args:
        flow: what the sagas and those participants make together.
        here: the participants whose handlers and reactions are all known.
    """
    otherwise = "leave {owner} out here, where another process runs it"
    return [
        *_handlers(flow, otherwise, here),
        *(each for saga in flow.choreographies for each in _without_reaction(flow, saga, otherwise, here)),
    ]


# --- messages ---------------------------------------------------------------------------------------------------------


def owners(flow: Flow) -> Iterator[Finding]:
    """The messages that several participants are said to own."""
    for type_, owners in sorted(flow.owners.items()):
        if len(owners) > 1:
            yield Finding(
                "two owners",
                type_,
                f"{type_} is declared with the owners {_listed(owners)}. Only one participant can answer for it: keep "
                "one declaration and import it, or give the other message a name of its own.",
            )


def _two_meanings(flow: Flow) -> Iterator[Finding]:
    """The events that are called like an answer of Antiphon's own to a command: who reacts to one hears both."""
    for node in flow.of_kind("command", "compensation"):
        name, _, version = node.id.partition(":")[2].rpartition(".v")
        own = ("refused", "closed") if node.kind == "command" else ("done",)
        for kind in (*own, "exhausted", "superseded"):
            if (type_ := f"{name}.{kind}.v{version}") in flow.owners:
                yield Finding(
                    "two meanings",
                    type_,
                    f"{type_} is an event, and what Antiphon says when {node.kind} {node.label} is {kind}: who reacts "
                    "to the event hears both. Give the event another name.",
                )


def _handlers(flow: Flow, otherwise: str, here: Collection[str] | None = None) -> Iterator[Finding]:
    for node in flow.of_kind("command", "compensation"):
        if here is not None and node.owner not in here:
            continue
        handlers = [flow.nodes[edge.target].label for edge in flow.after(node.id, "handles")]
        if not handlers:
            by = "handles" if node.kind == "command" else "compensates"
            yield Finding(
                "unhandled",
                node.label,
                f"{node.kind} {node.label} has no handler. Let {node.owner} declare one with @{node.owner}.{by}(...), "
                f"or {otherwise.format(owner=node.owner)}.",
            )
        elif len(handlers) > 1:
            yield Finding(
                "two handlers",
                node.label,
                f"{node.kind} {node.label} is handled by {_listed(handlers)}, and which of them gets it is chance. "
                "Keep one.",
            )


def _unknown_sagas(flow: Flow, otherwise: str) -> Iterator[Finding]:
    known = _sagas(flow)
    for node in flow.of_kind("handler"):
        for edge in flow.before(node.id, "handles"):
            if edge.saga and edge.saga not in known:
                yield Finding(
                    "unknown saga",
                    node.label,
                    f"{node.label} hears {flow.nodes[edge.source].label} in sagas of type {edge.saga!r}, which nobody "
                    f"defines here. Correct its saga_type, or {otherwise}.",
                )


def _unheard(flow: Flow) -> Iterator[Finding]:
    for node in flow.of_kind("event"):
        heard = flow.after(node.id, *RECEIVING)
        for saga in sorted(_said_in(flow, node)):
            if not _is_declared(flow, saga, node.id) and not any(_meet(edge.saga, saga) for edge in heard):
                yield Finding(
                    "unheard",
                    node.label,
                    f"event {node.label} is emitted by {_listed(_emitters(flow, node, saga))}{_in(saga)} and handled "
                    "by nobody. Let a participant react to it, name it among the ends of its choreography, or do not "
                    "publish it: a reaction may return None.",
                )


def _unsaid(flow: Flow, otherwise: str) -> Iterator[Finding]:
    known = _sagas(flow)
    for node in flow.of_kind("event"):
        said = _said_in(flow, node)
        for edge in flow.after(node.id, "handles", "awaits", "ends"):
            if not _is_reply(flow, edge) and edge.saga in (ANY, *known) and not any(_meet(edge.saga, s) for s in said):
                waits = f"ends {edge.saga}" if edge.kind == "ends" else f"is awaited by {flow.nodes[edge.target].label}"
                yield Finding(
                    "unsaid",
                    node.label,
                    f"event {node.label} {waits}{_in(edge.saga if edge.kind != 'ends' else ANY)} and is emitted by "
                    f"nobody there. Let {node.owner} publish it, or {otherwise}.",
                )


def _said_elsewhere(flow: Flow) -> Iterator[Finding]:
    """Reactions to what clients send as a signal that hear it as a start, and the other way round."""
    for edge in flow.edges:
        event = flow.nodes[edge.source]
        is_sent = any(sent.source == CLIENT and sent.saga == edge.saga for sent in flow.before(event.id, "emits"))
        if edge.kind != "handles" or event.owner != CLIENT or not is_sent:
            continue
        is_signal = any(awaited.saga == edge.saga for awaited in flow.after(event.id, "awaits"))
        if is_signal != (edge.label == SIGNAL):
            heard, sent_as = ("a start", "a signal") if is_signal else ("a signal", "the start")
            yield Finding(
                "unsaid",
                event.label,
                f"event {event.label} is awaited by {flow.nodes[edge.target].label}{_in(edge.saga)} as {heard}, and "
                f"clients send it there as {sent_as}. {'Add' if is_signal else 'Drop'} signal=True.",
            )


def _is_reply(flow: Flow, edge: Edge) -> bool:
    """Whether a saga ends with it because a command was answered with it; what is wrong then is wrong there."""
    return edge.kind == "ends" and edge.saga not in flow.choreographies


# --- reactions --------------------------------------------------------------------------------------------------------


def _cycles(flow: Flow) -> Iterator[Finding]:
    seen: set[frozenset[str]] = set()
    for saga in [*sorted(_sagas(flow)), ANY]:
        for node in flow.of_kind("handler"):
            path = _way_back(flow, saga, node.id)
            if path is None or frozenset(path) in seen or _reaches_end(flow, saga, [node.id]):
                continue
            seen.add(frozenset(path))
            events = [flow.nodes[id].label for id in path if flow.nodes[id].kind == "event"]
            yield Finding(
                "cycle",
                events[0],
                f"events follow from each other without an end{_in(saga)}: {' → '.join([*events, events[0]])}. Let one "
                "of the reactions return None, or publish an event that ends the saga.",
            )


def _way_back(flow: Flow, saga: str, begin: str) -> list[str] | None:
    """The shortest way from a reaction back to itself, which is left out at its end."""
    came_from: dict[str, str] = {}
    waiting = [begin]
    while waiting:
        node = waiting.pop(0)
        for following in _onwards(flow, saga, node):
            if following == begin:
                return _path(came_from, begin, node)
            if following not in came_from:
                came_from[following] = node
                waiting.append(following)
    return None


def _path(came_from: dict[str, str], begin: str, end: str) -> list[str]:
    path = [end]
    while path[-1] != begin:
        path.append(came_from[path[-1]])
    return path[::-1]


def _choreography(flow: Flow, saga: str, otherwise: str) -> Iterator[Finding]:
    begins = [
        edge.target for edge in flow.edges if edge.kind == "emits" and edge.saga == saga and _is_start(flow, edge)
    ]
    if flow.choreographies[saga]:
        yield from _without_reaction(flow, saga, otherwise)
        yield from _left_out(flow, saga, begins)
    live = reachable(begins, lambda node: _onwards(flow, saga, node))
    for id in live:
        node = flow.nodes[id]
        if node.kind == "event" and _is_dead_end(flow, saga, id):
            heard = _listed(flow.nodes[next_].label for next_ in _onwards(flow, saga, id))
            yield Finding(
                "endless",
                node.label,
                f"{node.label} is heard by {heard}, nothing more is published then, and it is no end of {saga}, which "
                "would wait until its deadline. Name it in completes= or compensates=, or publish what follows.",
            )
        if node.is_failure:
            yield from _uncompensated(flow, saga, node, live)


def _without_reaction(flow: Flow, saga: str, otherwise: str, here: Collection[str] | None = None) -> Iterator[Finding]:
    """What the saga's own flow says, and nobody does: such a saga is late, and waits for whoever cannot come."""
    for event, participant in flow.choreographies[saga]:
        if here is not None and participant not in here:
            continue
        if participant not in _hearers(flow, saga, event):
            label = flow.nodes[event].label
            yield Finding(
                "no reaction",
                label,
                f"the flow of {saga} says that {participant} reacts to {label}, and no reaction there hears it. Let "
                f"{participant} declare one with @{participant}.reacts_to(..., saga_type={saga!r}), or "
                f"{otherwise.format(owner=participant)}, or "
                "correct flow=.",
            )


def _left_out(flow: Flow, saga: str, begins: list[str]) -> Iterator[Finding]:
    """What participants do before the end, and the saga's own flow does not say.

    A reaction that publishes nothing is waited for by nobody, so it may be left out; the event that it hears may not.
    """
    declared = flow.choreographies[saga]
    for id in reachable(begins, lambda node: [] if _ends(flow, saga, node) else _onwards(flow, saga, node)):
        node = flow.nodes[id]
        if node.kind != "event" or _ends(flow, saga, id):
            continue
        hearers = _hearers(flow, saga, id)
        if hearers and not _is_declared(flow, saga, id):
            yield Finding(
                "left out",
                node.label,
                f"{_listed(hearers)} reacts to {node.label} in {saga}, whose flow leaves the event out: it would be "
                f"parked, and the saga said to wait for somebody else. Add it to flow=, with {_listed(hearers)}.",
            )
            continue
        for participant, handlers in hearers.items():
            speaking = [flow.nodes[each].label for each in handlers if flow.after(each, "emits")]
            if speaking and (id, participant) not in declared:
                yield Finding(
                    "left out",
                    node.label,
                    f"{_listed(speaking)} reacts to {node.label} in {saga}, whose flow leaves {participant} out: "
                    f"a saga that waits for it would not say so. Name {participant} beside {node.label} in flow=.",
                )


def _hearers(flow: Flow, saga: str, event: str) -> dict[str, list[str]]:
    """By participant, the reactions that hear an event in sagas of a type."""
    found: dict[str, list[str]] = {}
    for id in _onwards(flow, saga, event):
        found.setdefault(flow.nodes[id].owner, []).append(id)
    return found


def _is_declared(flow: Flow, saga: str, event: str) -> bool:
    """Whether a choreography says that something follows from an event."""
    return any(followed == event for followed, _ in flow.choreographies.get(saga, ()))


def _uncompensated(flow: Flow, saga: str, failure: Node, live: list[str]) -> Iterator[Finding]:
    following = set(reachable([failure.id], lambda node: _onwards(flow, saga, node)))
    for edge in flow.before(failure.id, "emits"):
        for id in sorted(_may_have_happened(flow, saga, edge.source, live)):
            done = flow.nodes[id]
            undoings = [undo.source for undo in flow.before(id, "compensates") if undo.saga in (ANY, saga)]
            if done.needs_undoing and not following.intersection(undoings):
                yield Finding(
                    "not compensated",
                    failure.label,
                    f"when {failure.label} is published{_in(saga)}, {done.label} may have had its effect, and nobody "
                    f"takes it back. Let {done.owner} react to {failure.label}, or to what follows from it, with "
                    f"undoes={done.id.rpartition('.')[2]}, or say needs_no_compensation=True there.",
                )


def _turned(flow: Flow, saga: str) -> Iterator[Finding]:
    """What was done on an event of a saga that coordinators lead, which then is turned."""
    told: set[str] = set()
    for turn in flow.turns[saga]:
        taken_back = _taken_back(flow, saga, turn)
        for event in turn.said:
            for id in _done_on(flow, saga, event, turn):
                done = flow.nodes[id]
                if done.needs_undoing and id not in taken_back | told:
                    told.add(id)
                    yield _not_taken_back(flow, saga, flow.nodes[event], done, turn)


def _done_on(flow: Flow, saga: str, event: str, turn: Turn) -> list[str]:
    """All reactions to an event and to what follows, but those that turn the saga: they say that they did nothing."""
    refusing = {edge.source for each in turn.by for edge in flow.before(each, "emits")}
    return reachable([event], lambda node: [id for id in _onwards(flow, saga, node) if id not in refusing])


def _taken_back(flow: Flow, saga: str, turn: Turn) -> set[str]:
    """What somebody takes back: on what turns the saga or follows from it, where an event tells of that."""
    reached = set(reachable(turn.by, lambda node: _onwards(flow, saga, node)))
    return {
        edge.target
        for edge in flow.edges
        if edge.kind == "compensates" and edge.saga in (ANY, saga) and flow.nodes[edge.source].is_reaction
        if not turn.by or edge.source in reached
    }


def _not_taken_back(flow: Flow, saga: str, said: Node, done: Node, turn: Turn) -> Finding:
    by = f" by {' or '.join(flow.nodes[each].label for each in turn.by)}" if turn.by else ""
    return Finding(
        "not compensated",
        said.label,
        f"when {saga} is turned{by} after {said.label} was said in it, {done.label} may have had its effect, and "
        f"nobody takes it back. Let {done.owner} react to an event that tells of the turn with "
        f"undoes={done.id.rpartition('.')[2]}, or do it on a command that has a compensation, or say "
        "needs_no_compensation=True there.",
    )


def _may_have_happened(flow: Flow, saga: str, refusing: str, live: list[str]) -> set[str]:
    """The reactions that come before one, and those that run beside it from an event that several hear."""
    found = {id for id in live if id != refusing and refusing in _followers(flow, saga, id)}
    for id in live:
        hearers = _onwards(flow, saga, id) if flow.nodes[id].kind == "event" else []
        for mine in hearers:
            if mine == refusing or refusing in _followers(flow, saga, mine):
                for other in hearers:
                    if other not in (mine, refusing):
                        beside = reachable([other], lambda node: _onwards_without(flow, saga, node, refusing))
                        found.update(beside)
    found.discard(refusing)
    return {id for id in found if flow.nodes[id].is_reaction}


def _followers(flow: Flow, saga: str, reaction: str) -> set[str]:
    """What follows from a reaction that had its effect."""
    begins = [next_ for next_ in _onwards(flow, saga, reaction) if not flow.nodes[next_].is_failure]
    return set(reachable(begins, lambda node: _onwards(flow, saga, node)))


def _onwards(flow: Flow, saga: str, node: str) -> list[str]:
    """From an event to the reactions that hear it in sagas of a type, from a reaction to the events it may publish."""
    return [
        edge.target
        for edge in flow.after(node, "handles", "emits")
        if edge.saga in (ANY, saga) and (flow.nodes[edge.target].is_reaction or flow.nodes[node].is_reaction)
    ]


def _onwards_without(flow: Flow, saga: str, node: str, left_out: str) -> list[str]:
    return [following for following in _onwards(flow, saga, node) if following != left_out]


def _is_dead_end(flow: Flow, saga: str, event: str) -> bool:
    hearers = _onwards(flow, saga, event)
    return bool(hearers) and not _ends(flow, saga, event) and not any(_onwards(flow, saga, each) for each in hearers)


def _reaches_end(flow: Flow, saga: str, begins: list[str]) -> bool:
    return any(_ends(flow, saga, id) for id in reachable(begins, lambda node: _onwards(flow, saga, node)))


def _ends(flow: Flow, saga: str, event: str) -> bool:
    return any(edge.saga == saga for edge in flow.after(event, "ends"))


# --- in which sagas ---------------------------------------------------------------------------------------------------


def _sagas(flow: Flow) -> set[str]:
    """The types of all sagas that are defined."""
    return {edge.saga for edge in flow.edges if edge.kind == "emits" and _is_start(flow, edge)} | {
        node.owner for node in flow.of_kind("end")
    }


def _is_start(flow: Flow, edge: Edge) -> bool:
    return flow.nodes[edge.source].kind == "client"


def _said_in(flow: Flow, event: Node) -> set[str]:
    """The types of the sagas in which an event is emitted; `ANY` stands for whatever saga the cause belongs to."""
    found: set[str] = set()
    for edge in flow.before(event.id, "emits"):
        if edge.saga or flow.nodes[edge.source].is_reaction:
            found.add(edge.saga)
        else:
            found.update(flow.asked_in(edge.source))
    return found


def _emitters(flow: Flow, event: Node, saga: str) -> list[str]:
    return [
        flow.nodes[edge.source].label
        for edge in flow.before(event.id, "emits")
        if _meet(edge.saga, saga) and (edge.saga or flow.nodes[edge.source].is_reaction or flow.asked_in(edge.source))
    ]


def _meet(one: str, other: str) -> bool:
    """Whether two statements may be about the same saga."""
    return ANY in (one, other) or one == other


def _in(saga: str) -> str:
    return f" in {saga}" if saga else ""


def _listed(names: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(names))

"""The flow as a graph: messages, who handles them, what is emitted then, and what undoes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, Literal

import msgspec

from antiphon.contracts.foreign_text import harmless
from antiphon.contracts.identity import CLIENT
from antiphon.contracts.messages import Contract
from antiphon.contracts.registration import Capabilities, Named, Reacted, ServedSaga, ServedStep
from antiphon.coordinator.definition.capabilities import capabilities_of as of_definitions
from antiphon.coordinator.definition.choreography import Choreography
from antiphon.coordinator.definition.saga import Saga
from antiphon.participants.capabilities import capabilities_of as of_participant
from antiphon.participants.participant import Participant

Part = Saga[Any] | Choreography[Any] | Participant
"""What a flow is made of."""

NodeKind = Literal["client", "event", "command", "compensation", "handler", "step", "end"]
EdgeKind = Literal["emits", "handles", "awaits", "notes", "follows", "starts", "ends", "compensates"]
"""awaits: a step waits for this very event. notes: a saga records it, and nothing follows. follows: a step comes after
what earned this event."""

MESSAGES = ("event", "command", "compensation")
SIGNAL = "signal"
"""The label of what is heard where clients send it to a saga that is under way, and not as its start."""
RECEIVING: tuple[EdgeKind, ...] = ("handles", "awaits", "notes", "follows", "starts", "ends")
"""How an event may go on."""


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message, or somebody who sends or receives one."""

    id: str
    kind: NodeKind
    label: str
    owner: str
    """The participant, or the saga type of a step and of an end."""
    is_failure: bool = False
    """An event that says that a reaction refused, and had no effect."""
    needs_undoing: bool = False
    """A reaction whose effect must be taken back when a later one refuses."""
    is_reaction: bool = False
    note: str = ""
    """How many run, or that nobody does."""

    @property
    def caption(self) -> str:
        """The label with the note, as it is shown."""
        return harmless(f"{self.label} {self.note}" if self.note else self.label)


class Edge(msgspec.Struct, frozen=True, omit_defaults=True):
    """From a message to who receives it, from them to what they send, or from an undoing to what it undoes."""

    source: str
    target: str
    kind: EdgeKind
    saga: str = ""
    """The saga type in which it is so; in all of them where empty."""
    label: str = ""


class Turn(msgspec.Struct, frozen=True):
    """How a saga that coordinators lead may be turned after something was said in it."""

    said: tuple[str, ...]
    """The events after which it may."""
    by: tuple[str, ...] = ()
    """The events that turn it, each of which tells that whoever says it has had no effect. Empty where a refusal, a
    cancel or a deadline does, of which no event tells."""


class Flow(msgspec.Struct, frozen=True, dict=True):
    """All that is known of who says what to whom."""

    nodes: dict[str, Node]
    edges: tuple[Edge, ...]
    owners: dict[str, tuple[str, ...]]
    """By a message's versioned type: everybody who is declared as its owner, which should be one."""
    choreographies: dict[str, tuple[tuple[str, str], ...]]
    """By the type of a saga that nobody leads: the events that are followed by others in it, and who is said to react
    to each. Empty where that is not known."""
    turns: dict[str, tuple[Turn, ...]]
    """By the type of a saga that coordinators lead."""

    def after(self, node: str, *kinds: EdgeKind) -> list[Edge]:
        """The edges that leave a node."""
        return [edge for edge in self._leaving.get(node, ()) if not kinds or edge.kind in kinds]

    def before(self, node: str, *kinds: EdgeKind) -> list[Edge]:
        """The edges that come to a node."""
        return [edge for edge in self._arriving.get(node, ()) if not kinds or edge.kind in kinds]

    @cached_property
    def _leaving(self) -> dict[str, list[Edge]]:
        return _grouped((edge.source, edge) for edge in self.edges)

    @cached_property
    def _arriving(self) -> dict[str, list[Edge]]:
        return _grouped((edge.target, edge) for edge in self.edges)

    def of_kind(self, *kinds: NodeKind) -> list[Node]:
        """All nodes of a kind, by their ids."""
        return sorted((node for node in self.nodes.values() if node.kind in kinds), key=lambda node: node.id)

    def asked_in(self, handler: str) -> set[str]:
        """The types of the sagas that send the command which a handler carries out."""
        sent = (sent for heard in self.before(handler, "handles") for sent in self.before(heard.source, "emits"))
        return {edge.saga for edge in sent if edge.saga}

    def within(self, saga: str) -> Flow:
        """What belongs to sagas of one type: all that follows from their start."""
        begins = [edge.target for edge in self.after(CLIENT, "emits") if edge.saga == saga]
        kept = dict.fromkeys([CLIENT, *reachable(begins, lambda node: self._onwards(node, saga))])
        edges = tuple(
            edge for edge in self.edges if edge.source in kept and edge.target in kept and edge.saga in ("", saga)
        )
        nodes = {id: self.nodes[id] for id in kept if id in self.nodes}
        return Flow(nodes, edges, self.owners, self.choreographies, self.turns)

    def _onwards(self, node: str, saga: str) -> Iterator[str]:
        for edge in self.after(node):
            if edge.saga in ("", saga) and not (edge.kind == "compensates" and self.nodes[node].kind == "handler"):
                yield edge.target


def _grouped(edges: Iterable[tuple[str, Edge]]) -> dict[str, list[Edge]]:
    found: dict[str, list[Edge]] = {}
    for node, edge in edges:
        found.setdefault(node, []).append(edge)
    return found


def reachable(begins: Iterable[str], onwards: Callable[[str], Iterable[str]]) -> list[str]:
    """All that can be reached, the beginnings included, in the order in which it is found."""
    found = dict.fromkeys(begins)
    waiting = list(found)
    while waiting:
        for node in onwards(waiting.pop(0)):
            if node not in found:
                found[node] = None
                waiting.append(node)
    return list(found)


def build(parts: Iterable[Part]) -> Flow:
    """The flow that sagas, choreographies and participants make together.

    Raises:
        DefinitionError: a saga is not complete.
    """
    return assemble(map(capabilities_of, parts))


def capabilities_of(part: Part) -> Capabilities:
    """What a part does, as data.

    Raises:
        DefinitionError: a saga is not complete.
    """
    return of_participant(part) if isinstance(part, Participant) else of_definitions([part.definition])


def assemble(capabilities: Iterable[Capabilities]) -> Flow:
    """The flow of what participants do and of the sagas that coordinators serve."""
    builder = _Builder()
    for each in capabilities:
        for saga in each.sagas:
            builder.saga(saga)
        builder.participant(each)
    return builder.flow()


def message_id(kind: NodeKind, contract: Contract) -> str:
    """The node of a message."""
    return f"{kind}:{contract.type}"


def handler_id(participant: str, name: str) -> str:
    """The node of a handler."""
    return f"handler:{participant}.{name}"


def step_id(saga: str, step: str) -> str:
    """The node of a step."""
    return f"step:{saga}.{step}"


def end_id(saga: str, ending: str) -> str:
    """The node of a saga's end."""
    return f"end:{saga}.{ending}"


class _Builder:
    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: dict[Edge, None] = {}
        self.owners: dict[str, dict[str, None]] = {}
        self.choreographies: dict[str, dict[tuple[str, str], None]] = {}
        self.turns: dict[str, dict[Turn, None]] = {}
        self.sagas: set[tuple[str, int]] = set()

    def flow(self) -> Flow:
        owners = {type_: tuple(found) for type_, found in self.owners.items()}
        choreographies = {saga: tuple(followed) for saga, followed in self.choreographies.items()}
        turns = {saga: tuple(found) for saga, found in self.turns.items()}
        return Flow(self.nodes, tuple(self.edges), owners, choreographies, turns)

    # --- sagas --------------------------------------------------------------------------------------------------------

    def saga(self, saga: ServedSaga) -> None:
        if (saga.name, saga.version) in self.sagas:
            return
        self.sagas.add((saga.name, saga.version))
        start = self._begin(saga.name, saga.start)
        if saga.is_led:
            self._steps(saga, start)
            self.turns.setdefault(saga.name, {}).update(dict.fromkeys(self._turns(saga, start)))
        else:
            self._choreography(saga)
        for event in saga.notes:
            node = self._node(Node(step_id(saga.name, "on-noted"), "step", "records", saga.name))
            self._edge(self._message("event", event), node, "notes", saga.name)

    def _steps(self, saga: ServedSaga, start: str) -> None:
        completed = self._end(saga.name, "completed")
        steps = {step.name: step for step in saga.steps}
        followed = {earlier for step in saga.steps for earlier in step.after}
        for step in saga.steps:
            node = self._step(saga, step.name)
            if not step.after:
                self._edge(start, node, "starts", saga.name, step.when)
            for earlier in step.after:
                self._edge(
                    self._outcome(saga, steps.get(earlier, ServedStep(name=earlier))),
                    node,
                    "follows",
                    saga.name,
                    step.when,
                )
            if step.name not in followed:
                self._edge(self._outcome(saga, step), completed, "ends", saga.name)
            self._sends(saga, step, node)

    def _turns(self, saga: ServedSaga, start: str) -> Iterator[Turn]:
        """Before its pivot many things turn it; after it only an event that says that nothing has happened."""
        after = {step.name: step.after for step in saga.steps}
        pivot = next((step.name for step in saga.steps if step.is_pivot), "")
        past = {
            name for name in after if name != pivot and pivot in reachable([name], lambda step: after.get(step, ()))
        }
        before = [step for step in saga.steps if step.name != pivot and step.name not in past]
        yield Turn((start, *(self._message("event", event) for step in before for event in _said_at(step))))
        for step in saga.steps:
            if step.name in past and step.unless:
                said = [event for other in saga.steps if other.is_pivot for event in _said_at(other)]
                yield Turn(
                    tuple(self._message("event", event) for event in said),
                    tuple(self._message("event", event) for event in step.unless),
                )

    def _sends(self, saga: ServedSaga, step: ServedStep, node: str) -> None:
        if step.awaits is not None:
            self._edge(self._signal(saga.name, step.awaits), node, "awaits", saga.name)
            for event in step.unless:
                self._edge(self._message("event", event), node, "awaits", saga.name, "refused")
        elif step.starts is not None:
            self._edge(node, self._message("event", step.starts), "emits", step.child)
        elif step.command is not None:
            command = self._message("command", step.command)
            self._edge(node, command, "emits", saga.name, "for each" if step.is_for_each else "")
        if step.undo is not None:
            self._edge(node, self._message("compensation", step.undo), "compensates", saga.name)

    def _signal(self, saga: str, event: Named) -> str:
        message = self._message("event", event)
        if event.owner == CLIENT:
            self._edge(self._client(), message, "emits", saga)
        return message

    def _outcome(self, saga: ServedSaga, step: ServedStep) -> str:
        """What has to have come about before a later step begins."""
        if step.reply is not None:
            return self._message("event", step.reply)
        if step.child:
            return self._end(step.child, "completed")
        return self._step(saga, step.name)

    def _choreography(self, saga: ServedSaga) -> None:
        declared = self.choreographies.setdefault(saga.name, {})
        for followed in saga.flow:
            declared |= dict.fromkeys((self._message("event", followed.event), by) for by in followed.by)
        for ending, events in (("completed", saga.completes), ("compensated", saga.compensates)):
            for event in events:
                self._edge(self._message("event", event), self._end(saga.name, ending), "ends", saga.name)

    # --- participants -------------------------------------------------------------------------------------------------

    def participant(self, capabilities: Capabilities) -> None:
        done: dict[str, str] = {}
        for handled in capabilities.commands:
            node = done[handled.command.type] = self._handler(capabilities, handled.handler)
            self._edge(self._message("command", handled.command), node, "handles")
            self._edge(node, self._message("event", handled.reply), "emits")
        for taken_back in capabilities.compensations:
            node = self._handler(capabilities, taken_back.handler)
            self._edge(self._message("compensation", taken_back.compensation), node, "handles")
            if taken_back.command.type in done:
                self._edge(node, done[taken_back.command.type], "compensates")
        for reacted in capabilities.reactions:
            self._reaction(capabilities, reacted)

    def _reaction(self, capabilities: Capabilities, reacted: Reacted) -> None:
        needs_undoing = not reacted.needs_no_compensation
        node = self._handler(capabilities, reacted.handler, needs_undoing=needs_undoing, is_reaction=True)
        saga = reacted.saga_type
        self._edge(self._message("event", reacted.event), node, "handles", saga, SIGNAL if reacted.is_signal else "")
        for event in reacted.emits:
            self._edge(node, self._message("event", event), "emits", saga)
        if reacted.refused is not None:
            failure = self._message("event", reacted.refused, is_failure=True)
            self._edge(node, failure, "emits", saga, "refused")
        if reacted.undoes:
            self._edge(node, self._handler(capabilities, reacted.undoes), "compensates", saga)

    def _handler(
        self, capabilities: Capabilities, name: str, *, needs_undoing: bool = False, is_reaction: bool = False
    ) -> str:
        node = Node(
            handler_id(capabilities.name, name),
            "handler",
            f"{capabilities.name}.{name}()",
            capabilities.name,
            needs_undoing=needs_undoing,
            is_reaction=is_reaction,
        )
        return self._node(node)

    # --- nodes and edges ----------------------------------------------------------------------------------------------

    def _begin(self, saga: str, start: Named) -> str:
        message = self._message("event", start)
        self._edge(self._client(), message, "emits", saga)
        return message

    def _end(self, saga: str, ending: str) -> str:
        return self._node(Node(end_id(saga, ending), "end", f"{saga} {ending}", saga))

    def _client(self) -> str:
        return self._node(Node(CLIENT, "client", CLIENT, CLIENT))

    def _step(self, saga: ServedSaga, name: str) -> str:
        return self._node(Node(step_id(saga.name, name), "step", name, saga.name))

    def _message(self, kind: NodeKind, message: Named, *, is_failure: bool = False) -> str:
        contract = message.contract
        self.owners.setdefault(contract.type, {})[contract.owner] = None
        id = message_id(kind, contract)
        if is_failure or id not in self.nodes:
            self.nodes[id] = Node(id, kind, _labelled(contract), contract.owner, is_failure=is_failure)
        return id

    def _node(self, node: Node) -> str:
        self.nodes.setdefault(node.id, node)
        return node.id

    def _edge(self, source: str, target: str, kind: EdgeKind, saga: str = "", label: str = "") -> None:
        self.edges[Edge(source, target, kind, saga, label)] = None


def _said_at(step: ServedStep) -> list[Named]:
    return [event for event in (step.reply, step.awaits) if event is not None]


def _labelled(contract: Contract) -> str:
    """The name, and the version where it is not the first."""
    return contract.name if contract.version == 1 else contract.type

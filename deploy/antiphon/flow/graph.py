"""The flow as a graph: messages, who handles them, what is emitted then, and what undoes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import msgspec

from antiphon.contracts.messages import CLIENT, Contract, Event
from antiphon.coordinator.choreography import Choreography
from antiphon.coordinator.graph import Definition, StepDefinition
from antiphon.coordinator.saga import Saga
from antiphon.participants.participant import Participant
from antiphon.participants.reaction import Reaction

Part = Saga[Any] | Choreography[Any] | Participant
"""What a flow is made of."""

NodeKind = Literal["client", "event", "command", "compensation", "handler", "step", "end"]
EdgeKind = Literal["emits", "handles", "awaits", "notes", "follows", "starts", "ends", "compensates"]
"""awaits: a step waits for this very event. notes: a saga records it, and nothing follows. follows: a step comes after
what earned this event."""

MESSAGES = ("event", "command", "compensation")
HEARING: tuple[EdgeKind, ...] = ("handles", "awaits", "notes", "follows", "starts", "ends")
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


class Edge(msgspec.Struct, frozen=True, omit_defaults=True):
    """From a message to who receives it, from them to what they send, or from an undoing to what it undoes."""

    source: str
    target: str
    kind: EdgeKind
    saga: str = ""
    """The saga type in which it is so; in all of them where empty."""
    label: str = ""


class Flow(msgspec.Struct, frozen=True):
    """All that is known of who says what to whom."""

    nodes: dict[str, Node]
    edges: tuple[Edge, ...]
    owners: dict[str, tuple[str, ...]]
    """By a message's versioned type: everybody who is declared as its owner, which should be one."""
    choreographies: tuple[str, ...]

    def after(self, node: str, *kinds: EdgeKind) -> list[Edge]:
        """The edges that leave a node."""
        return [edge for edge in self.edges if edge.source == node and (not kinds or edge.kind in kinds)]

    def before(self, node: str, *kinds: EdgeKind) -> list[Edge]:
        """The edges that come to a node."""
        return [edge for edge in self.edges if edge.target == node and (not kinds or edge.kind in kinds)]

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
        return Flow({id: self.nodes[id] for id in kept if id in self.nodes}, edges, self.owners, self.choreographies)

    def _onwards(self, node: str, saga: str) -> Iterator[str]:
        for edge in self.after(node):
            if edge.saga in ("", saga) and not (edge.kind == "compensates" and self.nodes[node].kind == "handler"):
                yield edge.target


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
    builder = _Builder()
    for part in parts:
        match part:
            case Saga():
                builder.saga(part.definition)
            case Choreography():
                builder.choreography(part)
            case Participant():
                builder.participant(part)
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
        self.choreographies: list[str] = []
        self.sagas: set[tuple[str, int]] = set()

    def flow(self) -> Flow:
        owners = {type_: tuple(found) for type_, found in self.owners.items()}
        return Flow(self.nodes, tuple(self.edges), owners, tuple(self.choreographies))

    # --- sagas --------------------------------------------------------------------------------------------------------

    def saga(self, saga: Definition) -> None:
        if (saga.name, saga.version) in self.sagas:
            return
        self.sagas.add((saga.name, saga.version))
        start = self._begin(saga.name, saga.start_shape)
        completed = self._end(saga.name, "completed")
        for child in saga.children:
            self.saga(child)
        for step in saga.steps.values():
            node = self._node(Node(step_id(saga.name, step.name), "step", step.name, saga.name))
            if not step.after:
                self._edge(start, node, "starts", saga.name, _condition(step))
            for earlier in step.after:
                self._edge(self._outcome(saga, saga.steps[earlier]), node, "follows", saga.name, _condition(step))
            if not step.dependents:
                self._edge(self._outcome(saga, step), completed, "ends", saga.name)
            self._sends(saga, step, node)
        for heard in saga.events.values():
            if heard.means == "note":
                node = self._node(Node(step_id(saga.name, "on-noted"), "step", "takes note", saga.name))
                self._edge(self._message("event", heard.shape.__contract__), node, "notes", saga.name)

    def _sends(self, saga: Definition, step: StepDefinition, node: str) -> None:
        if step.signal is not None:
            self._edge(self._signal(saga.name, step.signal), node, "awaits", saga.name)
            for event in step.unless:
                refusal = self._message("event", event.__contract__)
                self._edge(refusal, node, "awaits", saga.name, "refused")
        elif step.kind == "child" and step.do is not None:
            self._edge(node, self._message("event", step.do.contract), "emits", step.child)
        elif step.do is not None:
            command = self._message("command", step.do.contract)
            self._edge(node, command, "emits", saga.name, "for each" if step.elements_max else "")
        if step.undo is not None:
            self._edge(node, self._message("compensation", step.undo.contract), "compensates", saga.name)

    def _signal(self, saga: str, event: type[Event]) -> str:
        message = self._message("event", event.__contract__)
        if event.__contract__.owner == CLIENT:
            self._edge(self._client(), message, "emits", saga)
        return message

    def _outcome(self, saga: Definition, step: StepDefinition) -> str:
        """What has to have come about before a later step begins."""
        if step.reply is not None:
            return self._message("event", step.reply.__contract__)
        if step.kind == "child":
            return self._end(step.child, "completed")
        return self._node(Node(step_id(saga.name, step.name), "step", step.name, saga.name))

    # --- choreographies -----------------------------------------------------------------------------------------------

    def choreography(self, saga: Choreography[Any]) -> None:
        if saga.name not in self.choreographies:
            self.choreographies.append(saga.name)
        self._begin(saga.name, saga.start)
        for ending, events in (("completed", saga.completes), ("compensated", saga.compensates)):
            for event in events:
                self._edge(self._message("event", event.__contract__), self._end(saga.name, ending), "ends", saga.name)

    # --- participants -------------------------------------------------------------------------------------------------

    def participant(self, participant: Participant) -> None:
        done: dict[object, str] = {}
        for handler in participant.handlers.values():
            node = done[handler.command] = self._handler(participant, handler.call)
            self._edge(self._message("command", handler.command.__contract__), node, "handles")
            self._edge(node, self._message("event", handler.reply.__contract__), "emits")
        for compensation in participant.compensations.values():
            node = self._handler(participant, compensation.call)
            self._edge(self._message("compensation", compensation.compensation.__contract__), node, "handles")
            if compensation.command in done:
                self._edge(node, done[compensation.command], "compensates")
        for reaction in participant.reactions:
            self._reaction(participant, reaction)

    def _reaction(self, participant: Participant, reaction: Reaction) -> None:
        id = handler_id(participant.name, reaction.name)
        node = self._node(
            Node(
                id,
                "handler",
                f"{participant.name}.{reaction.name}()",
                participant.name,
                needs_undoing=not reaction.needs_no_compensation,
                is_reaction=True,
            )
        )
        saga = reaction.saga_type
        self._edge(self._message("event", reaction.event.__contract__), node, "handles", saga)
        for event in reaction.emits:
            self._edge(node, self._message("event", event.__contract__), "emits", saga)
        if reaction.refused is not None:
            failure = self._message("event", reaction.refused.__contract__, is_failure=True)
            self._edge(node, failure, "emits", saga, "refused")
        if reaction.undoes is not None:
            self._edge(node, handler_id(participant.name, reaction.undoes.name), "compensates", saga)

    def _handler(self, participant: Participant, call: Callable[..., Any]) -> str:
        id = handler_id(participant.name, call.__name__)
        return self._node(Node(id, "handler", f"{participant.name}.{call.__name__}()", participant.name))

    # --- nodes and edges ----------------------------------------------------------------------------------------------

    def _begin(self, saga: str, start: type[Event]) -> str:
        message = self._message("event", start.__contract__)
        self._edge(self._client(), message, "emits", saga)
        return message

    def _end(self, saga: str, ending: str) -> str:
        return self._node(Node(end_id(saga, ending), "end", f"{saga} {ending}", saga))

    def _client(self) -> str:
        return self._node(Node(CLIENT, "client", CLIENT, CLIENT))

    def _message(self, kind: NodeKind, contract: Contract, *, is_failure: bool = False) -> str:
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


def _labelled(contract: Contract) -> str:
    """The name, and the version where it is not the first."""
    return contract.name if contract.version == 1 else contract.type


def _condition(step: StepDefinition) -> str:
    return step.when.__name__ if step.when is not None else ""

"""The platform's messages as an AsyncAPI 3.0 document, and the contracts that such a document holds."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from antiphon.contracts import identity, subjects
from antiphon.contracts.compat.schema import Contracts, Described, describe, kind_of, schemas_of
from antiphon.contracts.envelope import CONTENT_TYPE, Envelope
from antiphon.contracts.errors import AntiphonError
from antiphon.contracts.foreign_text import harmless
from antiphon.contracts.identity import CLIENT
from antiphon.contracts.messages import AnswerKind, Contract, Message, Refusal, Undone, answer_name, answer_type
from antiphon.coordinator.definition.choreography import Choreography
from antiphon.coordinator.definition.definition import Definition
from antiphon.coordinator.definition.saga import Saga
from antiphon.participants.participant import Participant

from .graph import RECEIVING, SIGNAL, Flow, Part, build, message_id

VERSION: Final = "3.0.0"
EXTENSION: Final = "x-antiphon"
SCHEMAS: Final = "#/components/schemas/"
PARAMETERS: Final = ("partition", "sagaType", "sagaId", "step", "attempt")
COORDINATORS: Final = "coordinators"
CLIENTS: Final = "clients"

DESCRIPTIONS: Final = {
    "partition": "The first byte of SHA-256 over `<type>/<id>`, modulo 64.",
    "sagaType": "The saga's type.",
    "sagaId": "The saga's id, unique within its type.",
    "step": "The step that is asked for, answered, or followed.",
    "attempt": "Counts from 1.",
    "answer": "What became of the command.",
}

Json = dict[str, Any]


class NotExported(AntiphonError):
    """A file is no document that `antiphon contracts export` wrote. The sentence has the remedy."""


# --- all messages -----------------------------------------------------------------------------------------------------


def messages_of(parts: Iterable[Part]) -> dict[str, type[Message]]:
    """The classes of all messages that sagas, choreographies and participants name, by their versioned types."""
    found = {each.__contract__.type: each for part in parts for each in _named_by(part)}
    return dict(sorted(found.items()))


def _named_by(part: Part) -> Iterator[type[Message]]:
    match part:
        case Saga():
            yield from _named_by_saga(part.definition)
        case Choreography():
            yield from (part.start, *part.ends)
        case Participant():
            yield from _named_by_participant(part)


def _named_by_saga(saga: Definition) -> Iterator[type[Message]]:
    yield saga.start_shape
    for child in saga.children:
        yield from _named_by_saga(child)
    for step in saga.steps.values():
        yield from (each for each in (step.signal, step.reply) if each is not None)
        yield from (order.shape for order in (step.do, step.undo) if order is not None)


def _named_by_participant(participant: Participant) -> Iterator[type[Message]]:
    for handler in participant.handlers.values():
        yield from (handler.command, handler.reply)
    for compensation in participant.compensations.values():
        yield compensation.compensation
    for reaction in participant.reactions:
        yield from (reaction.event, *reaction.outcomes)


# --- the document -----------------------------------------------------------------------------------------------------


def export(parts: Iterable[Part], title: str, version: str) -> Json:
    """The document of all messages.

    Args:
        parts: sagas, choreographies and participants.
        title: what the platform is called.
        version: the document's own version, as its `info` has it.
    """
    there = list(parts)
    flow, messages = build(there), messages_of(there)
    schemas, definitions = schemas_of([*messages.values(), Envelope, Refusal, Undone], f"{SCHEMAS}{{name}}")
    references = dict(zip([*messages, "envelope", "refusal", "undone"], schemas, strict=True))
    document: Json = {
        "asyncapi": VERSION,
        "info": {"title": harmless(title), "version": harmless(version), "description": _DESCRIPTION},
        "defaultContentType": CONTENT_TYPE,
        "channels": {},
        "operations": {},
        "components": {"messages": {}, "schemas": definitions},
    }
    described = {type_: _described(flow, message) for type_, message in messages.items()}
    for type_, message in messages.items():
        body = _body(type_, references[type_], references["envelope"])
        document["components"]["messages"][type_] = {**_message(message, described[type_]), "payload": body}
        document["channels"][type_] = _channel(flow, message)
    for message in messages.values():
        if kind_of(message) != "event":
            _add_answers(document, flow, message, references)
    for each in described.values():
        _add_operations(document, each)
    return document


_DESCRIPTION: Final = (
    "Every message is a CloudEvents 1.0 event in structured JSON whose `id` is the subject it is stored at. Commands "
    "and compensations are stored in the stream SAGA, everything else in EVENTS."
)


def _described(flow: Flow, message: type[Message]) -> Described:
    node = message_id(kind_of(message), message.__contract__)
    if kind_of(message) != "event":
        return describe(message, [COORDINATORS], [message.__contract__.owner])
    readers: dict[str, None] = {}
    for edge in flow.after(node, *RECEIVING):
        target = flow.nodes[edge.target]
        readers[target.owner if target.kind == "handler" else COORDINATORS] = None
    owner = message.__contract__.owner
    return describe(message, [CLIENTS if owner == CLIENT else owner], sorted(readers))


def _message(message: type[Message], described: Described) -> Json:
    contract = message.__contract__
    words = inspect.getdoc(message) if message.__doc__ else None
    return {
        "name": contract.type,
        "title": message.__name__,
        **({"summary": harmless(words.partition("\n")[0])} if words else {}),
        "contentType": CONTENT_TYPE,
        EXTENSION: msgspec.to_builtins(described),
    }


def _body(type_: str, data: Json, envelope: Json) -> Json:
    """The envelope around a payload, whose type is fixed."""
    return {"allOf": [envelope, {"type": "object", "properties": {"type": {"const": type_}, "data": data}}]}


# --- channels ---------------------------------------------------------------------------------------------------------


def _channel(flow: Flow, message: type[Message]) -> Json:
    contract = message.__contract__
    kind = kind_of(message)
    sagas: set[str] = set()
    if kind == "command":
        pattern = subjects.commands_filter(contract.owner, "do")
        sagas = {edge.saga for edge in flow.before(message_id(kind, contract), "emits")}
    elif kind == "compensation":
        pattern = subjects.commands_filter(contract.owner, "undo")
        sagas = {edge.saga for edge in flow.before(message_id(kind, contract), "compensates")}
    elif contract.owner != CLIENT:
        pattern = subjects.event_subject("*.*.*", contract.owner, contract.token, "*", "*")
    else:
        node = message_id(kind, contract)
        sagas = {edge.saga for edge in flow.before(node, "emits")}
        is_signal = bool(flow.after(node, "awaits")) or any(e.label == SIGNAL for e in flow.after(node, "handles"))
        pattern = (
            subjects.event_subject("*.*.*", CLIENT, "signal", contract.token, 1)
            if is_signal
            else subjects.CLIENT_STARTS_FILTER
        )
    return _channel_at(pattern, sorted(sagas), {contract.type: f"#/components/messages/{contract.type}"})


def _channel_at(pattern: str, sagas: list[str], messages: dict[str, str]) -> Json:
    """A channel whose address has a parameter wherever the pattern has a star."""
    address, parameters = pattern, dict[str, Json]()
    for name in PARAMETERS[: pattern.count("*")]:
        address = address.replace("*", f"{{{name}}}", 1)
        parameters[name] = {"description": DESCRIPTIONS[name]}
    if sagas:
        parameters["sagaType"]["enum"] = sagas
    return {
        "address": address,
        "messages": {name: {"$ref": reference} for name, reference in messages.items()},
        "parameters": parameters,
    }


def _add_answers(document: Json, flow: Flow, message: type[Message], references: dict[str, Json]) -> None:
    """The answers to a command that have no class of their own, in a channel of theirs."""
    contract = message.__contract__
    tokens: list[str] = []
    channel = _channel_at(subjects.event_subject("*.*.*", contract.owner, "ANSWER", "*", "*"), [], {})
    for kind in _answers(message):
        type_ = answer_type(contract, kind)
        data = references["undone" if kind == "done" else "refusal"]
        # An event of that name is what teams declared, and is kept; `flow check` tells of the two meanings.
        document["components"]["messages"].setdefault(
            type_,
            {
                "name": type_,
                "title": f"{message.__name__} {kind}",
                "contentType": CONTENT_TYPE,
                "payload": _body(type_, data, references["envelope"]),
            },
        )
        channel["messages"][type_] = {"$ref": f"#/components/messages/{type_}"}
        tokens.append(identity.dashed(answer_name(contract, kind)))
    channel["address"] = channel["address"].replace("ANSWER", "{answer}")
    channel["parameters"]["answer"] = {"description": DESCRIPTIONS["answer"], "enum": tokens}
    document["channels"][_answers_to(contract)] = channel


def _answers(message: type[Message]) -> tuple[AnswerKind, ...]:
    if kind_of(message) == "command":
        return ("refused", "exhausted", "superseded")
    return ("done", "exhausted", "superseded")


def _answers_to(contract: Contract) -> str:
    return f"{contract.type}.answers"


# --- operations -------------------------------------------------------------------------------------------------------


def _add_operations(document: Json, described: Described) -> None:
    """Who sends and who receives a message, each an operation that is tagged with the sender or receiver."""
    for action, actors in (("send", described.writers), ("receive", described.readers)):
        for actor in actors:
            operation: Json = {
                "action": action,
                "title": f"{actor} {action}s {described.type}".replace("coordinators sends", "coordinators send"),
                "channel": {"$ref": f"#/channels/{described.type}"},
                "messages": [{"$ref": f"#/channels/{described.type}/messages/{described.type}"}],
                "tags": [{"name": actor}],
            }
            if described.kind != "event":
                operation["reply"] = _reply(document, described)
            document["operations"][f"{actor}.{action}.{described.type}"] = operation


def _reply(document: Json, described: Described) -> Json:
    """Where a command is answered with the event that it earns; a compensation has only answers of the other kind."""
    answers = f"{described.type}.answers"
    if described.kind == "command" and described.about in document["channels"]:
        return {
            "channel": {"$ref": f"#/channels/{described.about}"},
            "messages": [{"$ref": f"#/channels/{described.about}/messages/{described.about}"}],
        }
    names = document["channels"][answers]["messages"]
    return {
        "channel": {"$ref": f"#/channels/{answers}"},
        "messages": [{"$ref": f"#/channels/{answers}/messages/{name}"} for name in names],
    }


# --- reading it back --------------------------------------------------------------------------------------------------


def contracts_in(document: Json) -> Contracts:
    """The contracts that an exported document holds.

    Raises:
        NotExported: it is another document.
    """
    try:
        found = {
            type_: (
                msgspec.convert(message[EXTENSION], Described),
                message["payload"]["allOf"][1]["properties"]["data"],
            )
            for type_, message in document["components"]["messages"].items()
            if EXTENSION in message
        }
        definitions = document["components"]["schemas"]
    except (KeyError, TypeError, IndexError, AttributeError, msgspec.ValidationError) as error:
        raise NotExported(
            f"this is no document that `antiphon contracts export` wrote ({type(error).__name__}: {error}). "
            "Export the old contracts with it, and compare with that."
        ) from None
    return Contracts(
        {type_: described for type_, (described, _) in found.items()},
        {type_: data for type_, (_, data) in found.items()},
        definitions,
    )

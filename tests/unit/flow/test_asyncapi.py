"""The exported document is valid AsyncAPI 3.0, complete, and gives the contracts back.

`asyncapi-3.0.0.schema.json.gz` is the published schema (npm's @asyncapi/specs 6.11.1, Apache License 2.0), without its
descriptions and examples.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from antiphon.contracts import Event, clock, identity, subjects
from antiphon.contracts.compat.compatibility import compare_contracts
from antiphon.contracts.compat.schema import Described
from antiphon.contracts.envelope import Envelope
from antiphon.flow.asyncapi import EXTENSION, NotExported, contracts_in, export
from antiphon.order.data import load_orders
from antiphon.participants import Participant, Transaction
from tests.unit.flow.shop import choreographed, orchestrated, stock_with_handlers
from tests.unit.flow.test_check import ORDER_SYSTEM, Delivered, Hold, HoldRefused
from tests.unit.flow.test_drawings import with_everything

SCHEMA = json.loads(gzip.decompress(Path(__file__).with_name("asyncapi-3.0.0.schema.json.gz").read_bytes()))
SHOP = choreographed()


def document_of(*parts: Any) -> dict[str, Any]:
    """An export as a reader gets it."""
    found: dict[str, Any] = json.loads(msgspec.json.encode(export(parts, "Orders", "1")))
    return found


def errors_in(document: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(document)]


@pytest.mark.parametrize(
    "parts",
    [ORDER_SYSTEM, (SHOP.stock, SHOP.billing, SHOP.saga), (with_everything(), orchestrated()), ()],
    ids=["order", "shop", "everything", "nothing"],
)
def test_it_is_valid_by_the_published_schema(parts: tuple[Any, ...]) -> None:
    assert errors_in(document_of(*parts)) == []


def test_the_published_schema_would_say_so_if_it_were_not() -> None:
    document = document_of(*ORDER_SYSTEM)
    document["operations"]["inventory.receive.inventory.reserve.v1"]["action"] = "take"
    assert errors_in(document)


def test_every_reference_leads_somewhere() -> None:
    document = document_of(*ORDER_SYSTEM)
    references = list(references_in(document))
    assert len(references) > 100
    for reference in references:
        found: Any = document
        for key in reference.removeprefix("#/").split("/"):
            found = found[key]


def references_in(found: Any) -> Iterator[str]:
    match found:
        case {"$ref": str() as reference}:
            yield reference
        case dict():
            for value in found.values():
                yield from references_in(value)
        case list():
            for value in found:
                yield from references_in(value)
        case _:
            pass


def test_a_command_has_its_address_its_sender_its_receiver_and_its_reply() -> None:
    document = document_of(*ORDER_SYSTEM)
    channel = document["channels"]["payment.charge.v1"]
    assert channel["address"] == "saga.{partition}.{sagaType}.{sagaId}.c.cmd.billing.{step}.do.{attempt}"
    assert channel["parameters"]["sagaType"]["enum"] == ["order"]
    received = document["operations"]["billing.receive.payment.charge.v1"]
    assert received["reply"]["channel"] == {"$ref": "#/channels/payment.charged.v1"}
    assert "coordinators.send.payment.charge.v1" in document["operations"]
    answers = document["channels"]["payment.charge.v1.answers"]
    assert answers["address"] == "evt.{partition}.{sagaType}.{sagaId}.billing.{answer}.{step}.{attempt}"
    assert answers["parameters"]["answer"]["enum"] == [
        "payment-charge-refused",
        "payment-charge-exhausted",
        "payment-charge-superseded",
    ]


def test_addresses_are_those_of_the_protocol() -> None:
    document = document_of(*ORDER_SYSTEM)
    key = identity.SagaKey.of("order", "order-0001")
    for name, subject in (
        ("inventory.release.v1", subjects.command_subject(key, "inventory", "reserve_inventory", "undo", 2)),
        (
            "inventory.reserved.v1",
            subjects.event_subject(key.path, "inventory", "inventory-reserved", "reserve_inventory", 1),
        ),
        ("order.placed.v1", subjects.start_subject(key)),
    ):
        pattern = document["channels"][name]["address"].split(".")
        assert len(pattern) == len(subject.split("."))
        assert all(one == other or one[0] == "{" for one, other in zip(pattern, subject.split("."), strict=True))
    signal = document_of(with_everything())["channels"]["fraud.cleared.v1"]["address"].split(".")
    assert signal[4:] == subjects.signal_subject(key, "fraud-cleared").split(".")[4:]


def test_a_message_on_the_wire_fits_its_payload() -> None:
    document = document_of(*ORDER_SYSTEM)
    order = load_orders()[0]
    subject = subjects.start_subject(identity.SagaKey.of("order", order.order_id))
    envelope = Envelope(
        id=subject,
        source="client",
        type="order.placed.v1",
        time=clock.moment(0),
        data=msgspec.Raw(msgspec.json.encode(order)),
    )
    payload = {**document["components"]["messages"]["order.placed.v1"]["payload"], "components": document["components"]}
    validator = jsonschema.Draft202012Validator(payload)
    message = json.loads(msgspec.json.encode(envelope))
    assert list(validator.iter_errors(message)) == []
    for wrong in ({"type": "order.created.v1"}, {"data": {**message["data"], "quantity": 0}}, {"specversion": "2.0"}):
        assert list(validator.iter_errors({**message, **wrong})), wrong


def test_who_writes_and_reads_stands_with_each_message() -> None:
    messages = document_of(*ORDER_SYSTEM)["components"]["messages"]
    described = {
        type_: msgspec.convert(each[EXTENSION], Described) for type_, each in messages.items() if EXTENSION in each
    }
    assert described["order.created.v1"].writers == ("clients",)
    assert described["order.created.v1"].readers == ("coordinators", "inventory")
    assert described["payment.charged.v1"].readers == ("coordinators", "loyalty")
    assert described["shipping.failed.v1"].readers == ("billing", "coordinators")
    assert described["payment.refund.v1"].about == "payment.charge.v1"


def test_a_document_gives_its_contracts_back() -> None:
    document = document_of(*ORDER_SYSTEM)
    contracts = contracts_in(document)
    assert len(contracts.messages) == 20
    assert compare_contracts(contracts, contracts_in(document_of(*ORDER_SYSTEM))) == []
    assert [change.message for change in compare_contracts(contracts, contracts_in(document_of(ORDER_SYSTEM[1])))]


def test_an_export_is_the_same_however_often_and_in_whatever_order_it_is_made() -> None:
    for parts in (ORDER_SYSTEM, (orchestrated(), stock_with_handlers())):
        assert json.dumps(document_of(*parts)) == json.dumps(document_of(*reversed(parts)))


@pytest.mark.parametrize("document", [{}, {"components": {"messages": {"a": {EXTENSION: {}}}}}, [], {"components": 1}])
def test_another_document_is_refused(document: Any) -> None:
    with pytest.raises(NotExported, match="no document that `antiphon contracts export` wrote"):
        contracts_in(document)


def test_an_event_that_is_called_like_an_answer_stays_in_the_export() -> None:
    mail, reader = Participant("mail"), Participant("reader")

    @mail.handles(Hold)
    async def hold(command: Hold, tx: Transaction) -> Delivered:
        return Delivered()

    @reader.reacts_to(HoldRefused)
    async def read(event: HoldRefused, tx: Transaction) -> None:
        return None

    assert "mail.hold.refused.v1" in contracts_in(document_of(mail, reader)).messages


class Urgent(Event, name="shop.urgent"):
    """Said by a client to a saga that is under way."""


def test_a_signal_that_only_a_reaction_hears_is_sent_where_signals_are() -> None:
    mail = Participant("mail")

    @mail.reacts_to(Urgent, saga_type="order", signal=True)
    async def hurry(event: Urgent, tx: Transaction) -> None: ...

    address = document_of(mail)["channels"]["shop.urgent.v1"]["address"].split(".")
    assert address[4:] == ["client", "signal", "shop-urgent", "1"]

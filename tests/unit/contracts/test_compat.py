"""Each incompatible change of a contract is named, with whom it breaks; what harms nobody is passed over in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from antiphon.contracts import Command, Compensation, Event
from antiphon.contracts.compat.compatibility import Change, compare_contracts
from antiphon.contracts.compat.schema import (
    Contracts,
    contracts_of,
    describe,
    digest_of,
    kind_of,
    schema_of,
    schemas_of,
)
from antiphon.contracts.messages import Message

ROOT = Path(__file__).parents[3]
NEW_READERS = "New code of billing cannot read what old code of coordinators wrote or is still writing."
OLD_READERS = "Old code of billing cannot read what new code of coordinators writes."
OLD_DEFAULT = "Old code of billing takes its default, because new code of coordinators leaves it out."
NEXT = "Take it back, or declare version=2 beside it and let this one go when nothing uses it any more."


class Paid(Event, name="billing.paid", owner="billing"):
    pass


class Address(msgspec.Struct):
    street: str


class ShortAddress(msgspec.Struct):
    street: Annotated[str, Meta(max_length=20)]


class Ride(msgspec.Struct):
    at: datetime
    back: Ride | None = None


class TalkedRide(msgspec.Struct):
    at: str
    back: TalkedRide | None = None


class Cash(msgspec.Struct, tag="cash"):
    pass


class Card(msgspec.Struct, tag="card"):
    code: Annotated[str, Meta(max_length=3)] = ""


class LongCard(msgspec.Struct, tag="card"):
    code: Annotated[str, Meta(max_length=4)] = ""


class OldCard(msgspec.Struct, tag="old"):
    code: Annotated[str, Meta(max_length=3)] = ""


WIDER = "has the max length 4, and had 3"


class Tree(msgspec.Struct):
    leaves: list[Tree] = []
    size: int = 0


class SmallTree(msgspec.Struct):
    leaves: list[SmallTree] = []
    size: Annotated[int, Meta(le=9)] = 0


def pay(**fields: Any) -> type[Message]:
    """A command with these fields: a type, or a type and a default."""
    annotations = {name: each[0] if isinstance(each, tuple) else each for name, each in fields.items()}
    defaults = {name: each[1] for name, each in fields.items() if isinstance(each, tuple)}
    namespace = {"__annotations__": annotations, "__module__": __name__, **defaults}
    base: Any = Command[Paid]
    made: type[Message] = type(base.__origin__)(
        "Pay", (Command,), {**namespace, "__orig_bases__": (base,)}, name="billing.pay"
    )
    return made


def contracts(*messages: type[Message]) -> Contracts:
    """The contracts of some messages; coordinators write commands, and events are read by them."""
    schemas, definitions = schemas_of(messages)
    described = [_described(message) for message in messages]
    types = [each.type for each in described]
    return Contracts(dict(zip(types, described, strict=True)), dict(zip(types, schemas, strict=True)), definitions)


def _described(message: type[Message]) -> Any:
    owner = message.__contract__.owner
    writers, readers = (owner, "coordinators") if kind_of(message) == "event" else ("coordinators", owner)
    return describe(message, [writers], [readers])


def changes(old: type[Message], new: type[Message]) -> list[Change]:
    """What breaks between two forms of one message."""
    return compare_contracts(contracts(old), contracts(new))


def change(old: type[Message], new: type[Message]) -> Change:
    """The one thing that breaks."""
    (found,) = changes(old, new)
    return found


AMOUNT = Annotated[int, Meta(ge=0, le=100)]


@pytest.mark.parametrize(
    ("old", "new", "field", "what", "breaks"),
    [
        ({"amount": int}, {}, "amount", "was removed", OLD_READERS),
        ({"amount": (int, 0)}, {}, "amount", "was removed", OLD_DEFAULT),
        ({}, {"amount": int}, "amount", "was added without a default", NEW_READERS),
        (
            {"amount": (int, 0)},
            {"amount": int},
            "amount",
            "must be there now, and could be left out",
            NEW_READERS,
        ),
        (
            {"amount": int},
            {"amount": (int, 0)},
            "amount",
            "may be left out now, and had to be there",
            OLD_READERS,
        ),
        (
            {"amount": int},
            {"amount": str},
            "amount",
            "is a string now, and was an integer",
            f"{NEW_READERS} {OLD_READERS}",
        ),
        ({"amount": int}, {"amount": float}, "amount", "is a number now, and was an integer", OLD_READERS),
        ({"amount": float}, {"amount": int}, "amount", "is an integer now, and was a number", NEW_READERS),
        ({"amount": int}, {"amount": int | None}, "amount", "may be null now", OLD_READERS),
        ({"amount": int | None}, {"amount": int}, "amount", "may not be null any more", NEW_READERS),
        (
            {"amount": AMOUNT},
            {"amount": Annotated[int, Meta(ge=0, le=50)]},
            "amount",
            "has the maximum 50, and had 100",
            NEW_READERS,
        ),
        (
            {"amount": AMOUNT},
            {"amount": Annotated[int, Meta(ge=0, le=500)]},
            "amount",
            "has the maximum 500, and had 100",
            OLD_READERS,
        ),
        (
            {"amount": AMOUNT},
            {"amount": Annotated[int, Meta(ge=1, le=100)]},
            "amount",
            "has the minimum 1, and had 0",
            NEW_READERS,
        ),
        (
            {"amount": AMOUNT},
            {"amount": Annotated[int, Meta(le=100)]},
            "amount",
            "has the minimum none, and had 0",
            OLD_READERS,
        ),
        (
            {"code": str},
            {"code": Annotated[str, Meta(pattern="^[A-Z]+$")]},
            "code",
            "has the pattern ^[A-Z]+$, and had none",
            NEW_READERS,
        ),
        (
            {"code": str},
            {"code": Annotated[str, Meta(max_length=3)]},
            "code",
            "has the max length 3, and had none",
            NEW_READERS,
        ),
        (
            {"card": Literal["valid", "expired"]},
            {"card": Literal["valid"]},
            "card",
            'may not be "expired" any more',
            NEW_READERS,
        ),
        (
            {"card": Literal["valid"]},
            {"card": Literal["valid", "stolen"]},
            "card",
            'may be "stolen" now',
            OLD_READERS,
        ),
        (
            {"card": str},
            {"card": Literal["valid"]},
            "card",
            'may be "valid" now, and could be anything',
            NEW_READERS,
        ),
        (
            {"to": list[Address]},
            {"to": list[ShortAddress]},
            "to[].street",
            "has the max length 20, and had none",
            NEW_READERS,
        ),
        ({"tree": Tree}, {"tree": SmallTree}, "tree.size", "has the maximum 9, and had none", NEW_READERS),
        (
            {"per": dict[str, int]},
            {"per": dict[str, str]},
            "per{}",
            "is a string now, and was an integer",
            f"{NEW_READERS} {OLD_READERS}",
        ),
        (
            {"pair": tuple[int, str]},
            {"pair": tuple[int, int]},
            "pair[1]",
            "is an integer now, and was a string",
            f"{NEW_READERS} {OLD_READERS}",
        ),
        ({"at": datetime}, {"at": str}, "at", "has the format none, and had date-time", OLD_READERS),
        ({"at": datetime | None}, {"at": str | None}, "at", "has the format none, and had date-time", OLD_READERS),
        ({"at": str}, {"at": datetime}, "at", "has the format date-time, and had none", NEW_READERS),
        ({"at": list[time]}, {"at": list[str]}, "at[]", "has the format none, and had time", OLD_READERS),
        ({"ride": Ride}, {"ride": TalkedRide}, "ride.at", "has the format none, and had date-time", OLD_READERS),
        ({"by": Cash | Card | None}, {"by": Cash | None}, "by", "may not be a Card any more", NEW_READERS),
        ({"by": Cash | None}, {"by": Cash | Card | None}, "by", "may be a Card now", OLD_READERS),
        ({"by": Cash | Card | None}, {"by": Cash | LongCard | None}, "by.code", WIDER, OLD_READERS),
    ],
)
def test_a_change_of_a_field_names_the_field_and_whom_it_breaks(
    old: dict[str, Any], new: dict[str, Any], field: str, what: str, breaks: str
) -> None:
    found = change(pay(**old), pay(**new))
    assert (found.message, found.field, found.what, found.breaks) == ("billing.pay.v1", field, what, breaks)
    assert found.sentence == f"billing.pay.v1: field {field} {what}. {breaks} {NEXT}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"amount": AMOUNT}, {"amount": AMOUNT}),
        ({"amount": int}, {"amount": int, "note": (str, "")}),
        ({"a": int, "b": str}, {"b": str, "a": int}),
        ({"amount": (int, 0)}, {"amount": (int, 7)}),
        ({"tree": Tree}, {"tree": Tree}),
        ({"to": Address}, {"to": Address, "and_to": (Address | None, None)}),
    ],
)
def test_what_harms_nobody_is_no_change(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert changes(pay(**old), pay(**new)) == []


def test_a_member_of_a_union_under_another_tag_is_another_member() -> None:
    found = changes(pay(by=Cash | Card | None), pay(by=Cash | OldCard | None))
    assert [each.what for each in found] == ["may not be a Card any more", "may be an OldCard now"]


def test_a_field_more_breaks_readers_that_forbid_unknown_ones() -> None:
    class Strict(Event, name="billing.strict", owner="billing", forbid_unknown_fields=True):
        pass

    class Stricter(Event, name="billing.strict", owner="billing", forbid_unknown_fields=True):
        note: str = ""

    found = change(Strict, Stricter)
    assert (found.field, found.what) == ("note", "was added, and unknown fields were forbidden")
    assert found.breaks == "Old code of coordinators cannot read what new code of billing writes."


def test_an_event_is_written_by_its_owner_and_read_by_others() -> None:
    class Sent(Event, name="mail.sent", owner="mail"):
        at: str

    class SentTo(Event, name="mail.sent", owner="mail"):
        at: str
        to: str

    found = change(Sent, SentTo)
    assert found.breaks == "New code of coordinators cannot read what old code of mail wrote or is still writing."


def test_a_new_message_is_no_change() -> None:
    assert compare_contracts(contracts(pay()), contracts(pay(), Paid)) == []


def test_a_message_that_is_gone_is_named() -> None:
    (found,) = compare_contracts(contracts(pay(), Paid), contracts(Paid))
    assert found.sentence == (
        "billing.pay.v1: is gone. Sagas in flight still send it to billing, and are answered with exhausted. "
        "Keep it beside its successor until nothing uses it any more."
    )
    (found,) = compare_contracts(contracts(Paid), contracts())
    assert found.breaks == "Old code of billing still writes it, and nobody can read it."


def test_a_message_of_which_only_a_later_version_is_left_is_named() -> None:
    class Paid2(Event, name="billing.paid", version=2, owner="billing"):
        amount: int

    assert change(Paid, Paid2).what == "is gone, and only billing.paid.v2 is left"


def test_a_message_under_another_name_is_recognised() -> None:
    class Settled(Event, name="billing.settled", owner="billing"):
        pass

    assert change(Paid, Settled).what == "is gone, and billing.settled.v1 looks like it under another name"


def test_another_owner_is_named() -> None:
    class PaidElsewhere(Event, name="billing.paid", owner="bank"):
        pass

    found = change(Paid, PaidElsewhere)
    assert found.what == "is owned by bank now, and was by billing"
    assert "What billing publishes is refused as forged" in found.breaks


def test_another_reply_and_another_kind_are_named() -> None:
    class Charged(Event, name="billing.charged", owner="billing"):
        pass

    class Charge(Command[Charged], name="billing.pay"):
        pass

    class NoCommand(Event, name="billing.pay", owner="billing"):
        pass

    assert change(pay(), Charge).what == "earns billing.charged.v1 now, and billing.paid.v1 before"
    assert "is an event now, and was a command" in [each.what for each in changes(pay(), NoCommand)]


def test_a_compensation_of_another_command_is_named() -> None:
    class Pay(Command[Paid], name="billing.pay"):
        pass

    class PayLater(Command[Paid], name="billing.pay-later"):
        pass

    class Refund(Compensation[Pay], name="billing.refund"):
        pass

    class RefundLater(Compensation[PayLater], name="billing.refund"):
        pass

    assert change(Refund, RefundLater).what == "undoes billing.pay-later.v1 now, and billing.pay.v1 before"


def test_the_schema_of_one_message_is_complete_in_itself() -> None:
    schema = schema_of(pay(to=Address))
    assert (schema["$id"], schema["$ref"]) == ("billing.pay.v1", "#/$defs/Pay")
    assert set(schema["$defs"]) == {"Pay", "Address"}


# --- the digest of schemas --------------------------------------------------------------------------------------------


def digest(*messages: type[Message]) -> str:
    return digest_of(contracts_of({each: describe(each, ["coordinators"], ["billing"]) for each in messages}))


def test_a_digest_tells_schemas_apart_and_not_what_is_written_there_for_people() -> None:
    def declared(doc: str, **fields: Any) -> type[Message]:
        message = pay(**fields)
        message.__doc__ = doc
        return message

    first = digest(declared("Pay by card.", description=str, amount=int), Paid)
    assert digest(declared("Pay by card, or in cash.", description=str, amount=int), Paid) == first
    assert digest(declared("Pay by card.", amount=int), Paid) != first  # a field may be called like what is left out


def test_whatever_travels_has_a_digest_and_it_depends_on_no_hash_seed() -> None:
    program = (
        "from antiphon.contracts import Event\n"
        "from antiphon.contracts.compat.schema import contracts_of, describe, digest_of\n"
        "from tests.support.cargo import TRAVELS, message\n"
        "found = [message(Event, f'cargo.n{number}', type_) for number, (type_, _) in enumerate(TRAVELS.values())]\n"
        "print(digest_of(contracts_of({each: describe(each) for each in found})))\n"
    )
    digests = set[bytes]()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        digests.add(subprocess.check_output([sys.executable, "-c", program], env=environment, cwd=ROOT))
    assert len(digests) == 1


def test_what_was_kept_is_compared_as_the_classes_are() -> None:
    """Schemas that were stored, read and compared give the sentences that the classes do."""

    def kept(message: type[Message]) -> Contracts:
        made = contracts_of({message: describe(message, ["coordinators"], ["billing"])})
        return msgspec.json.decode(msgspec.json.encode(made), type=Contracts)

    before, after = pay(amount=int, to=Address), pay(total=int, to=ShortAddress)
    sentences = [each.sentence for each in compare_contracts(kept(before), kept(after))]
    assert sentences == [each.sentence for each in changes(before, after)]
    assert len(sentences) == 3

"""Decoding is strict and bounded: each way to be wrong has an error with a name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from antiphon.contracts import BadIdentity, Event, Forged, TooLarge, Undecodable, UnknownType, WrongShape
from antiphon.contracts.envelope import MESSAGE_BYTES_MAX, Envelope, decode, encode, pack, unpack
from antiphon.contracts.errors import UnknownCodec, Unusable
from antiphon.contracts.messages import Refusal
from antiphon.contracts.payloads import Parked, parked_kind
from tests.support.trip import ASKED, TripAsked

SUBJECT = "evt.1.trip.t1.client.start"
TYPE = "trip.asked.v1"


def envelope(**changes: Any) -> Envelope:
    fields: dict[str, Any] = {
        "id": SUBJECT,
        "source": "client",
        "type": TYPE,
        "time": datetime(2026, 1, 2, tzinfo=UTC),
        "data": pack(ASKED),
    }
    return Envelope(**{**fields, **changes})


def raw(**changes: Any) -> bytes:
    """An envelope as JSON, with attributes changed, or left out where None."""
    attributes: dict[str, Any] = {**msgspec.json.decode(encode(envelope())), **changes}
    return msgspec.json.encode({name: value for name, value in attributes.items() if value is not None})


def test_what_was_encoded_is_decoded_again() -> None:
    sent = envelope(cause="e12", definition="trip.v1.abc", retry="5/1/2/30", command="77", traceparent="00-ab-cd-01")
    assert msgspec.structs.replace(decode(encode(sent), SUBJECT), data=sent.data) == sent
    assert unpack(decode(encode(sent), SUBJECT), TYPE, TripAsked) == ASKED


def test_attributes_that_say_nothing_are_left_out() -> None:
    assert set(msgspec.json.decode(encode(envelope()))) == {"specversion", "id", "source", "type", "time", "data"}


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type", "time", "data"])
def test_a_missing_attribute_is_a_wrong_shape(name: str) -> None:
    with pytest.raises(WrongShape, match="the envelope is wrong"):
        decode(raw(**{name: None}), SUBJECT)


@pytest.mark.parametrize(
    ("name", "value"), [("id", 1), ("time", "noon"), ("specversion", "0.3"), ("specversion", "other"), ("command", 77)]
)
def test_an_attribute_of_the_wrong_type_is_a_wrong_shape(name: str, value: object) -> None:
    with pytest.raises(WrongShape):
        decode(raw(**{name: value}), SUBJECT)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'{"id": "\xff"}', b"[" * 100_000], ids=repr)
def test_bytes_that_are_no_json_are_undecodable(data: bytes) -> None:
    with pytest.raises(Undecodable) as caught:
        decode(data, SUBJECT)
    assert caught.value.subject == SUBJECT


def test_another_type_than_the_one_that_belongs_there_is_unknown() -> None:
    with pytest.raises(UnknownType, match=r"'trip.asked.v2', where 'trip.asked.v1' belongs"):
        unpack(envelope(type="trip.asked.v2"), TYPE, TripAsked)


@pytest.mark.parametrize(
    "payload", [{"traveller": "Ada"}, {"traveller": "Ada", "nights": "two"}, {"traveller": None, "nights": 2}, [], 7]
)
def test_a_missing_field_or_a_wrong_one_is_a_wrong_shape(payload: object) -> None:
    with pytest.raises(WrongShape, match="TripAsked"):
        unpack(envelope(data=msgspec.Raw(msgspec.json.encode(payload))), TYPE, TripAsked)


@pytest.mark.parametrize("codec", ["zstd", "aes-256-gcm/key-7", "x" * 5000])
@pytest.mark.parametrize("data", [{"traveller": "Ada", "nights": 2}, "KLUv/SQ", 7])
def test_data_with_a_codec_is_refused_in_a_sentence_and_not_read_as_it_stands(codec: str, data: object) -> None:
    """What a later release may write; `data` may even look like the payload."""
    with pytest.raises(UnknownCodec, match=r"written with the codec '.*', which nothing here can read") as caught:
        decode(raw(codec=codec, data=data), SUBJECT)
    assert (caught.value.subject, parked_kind(caught.value), len(str(caught.value)) < 400) == (
        SUBJECT,
        "undecodable",
        True,
    )


def test_no_codec_is_plain_json_and_nothing_writes_one() -> None:
    assert decode(raw(codec=""), SUBJECT) == decode(raw(), SUBJECT)
    assert b"codec" not in encode(envelope())


def padded(size: int) -> Envelope:
    """An envelope that is `size` bytes long."""
    room = size - len(encode(envelope(data=pack(TripAsked(traveller="", nights=1)))))
    return envelope(data=pack(TripAsked(traveller="x" * room, nights=1)))


def test_the_largest_message_passes_and_one_byte_more_is_too_large() -> None:
    largest = encode(padded(MESSAGE_BYTES_MAX))
    assert len(largest) == MESSAGE_BYTES_MAX
    assert decode(largest, SUBJECT).id == SUBJECT
    with pytest.raises(TooLarge, match=f"{MESSAGE_BYTES_MAX + 1} bytes, and the limit is {MESSAGE_BYTES_MAX}"):
        encode(padded(MESSAGE_BYTES_MAX + 1))
    with pytest.raises(TooLarge):
        decode(largest + b" ", SUBJECT)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Forged("x"), "forged"),
        (BadIdentity("x"), "forged"),
        (TooLarge("x"), "undecodable"),
        (UnknownType("x"), "undecodable"),
        (WrongShape("x"), "undecodable"),
        (Unusable("x"), "fault"),
    ],
)
def test_each_unusable_message_has_its_drawer(error: Unusable, kind: str) -> None:
    assert parked_kind(error) == kind


def test_what_is_parked_keeps_its_bytes() -> None:
    parked = Parked(
        kind="forged",
        reason="r",
        noticed_by="coordinator",
        stream="EVENTS",
        sequence=3,
        subject=SUBJECT,
        data=b"\x00\xff",
    )
    assert parked.destination == "parked.forged.coordinator.client"
    assert msgspec.json.decode(parked.encode(), type=Parked) == parked


class Tagged(Event, name="trip.tagged"):
    tags: set[str]
    notes: dict[str, int]


def test_the_same_payload_has_the_same_bytes_whatever_order_its_parts_are_in() -> None:
    names = [f"tag-{number}" for number in range(50)]
    one = Tagged(tags=set(names), notes=dict.fromkeys(names, 1))
    other = Tagged(tags={*names[25:], *names[:25]}, notes=dict.fromkeys(reversed(names), 1))
    assert bytes(pack(one)) == bytes(pack(other))
    assert list(msgspec.json.decode(pack(one))["tags"]) == sorted(names)


def test_half_a_character_is_a_wrong_shape_that_names_it() -> None:
    with pytest.raises(WrongShape, match=r"Refusal: '.udc00' in its text is half a character"):
        pack(Refusal(reason="caf\udc00"))

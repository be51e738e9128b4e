"""Of a saga that was purged but for its end, a digest tells the same start from another one."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from antiphon.contracts import Event
from antiphon.contracts.envelope import pack
from antiphon.contracts.payloads import End, start_digest
from antiphon.coordinator.client.store_once import is_started_with


class Asked(Event, name="stay.asked"):
    guest: str
    nights: int
    tags: list[str]


class AskedSince(Event, name="stay.asked"):
    """The same contract, after two fields with defaults were added."""

    guest: str
    nights: int
    tags: list[str]
    breakfast: bool = False
    extras: list[str] = msgspec.field(default_factory=list)


class AskedAnew(Event, name="stay.asked", version=2):
    guest: str
    nights: int
    tags: list[str]


ASKED = Asked(guest="Ada", nights=2, tags=["sea"])


def ended(start: Event) -> End:
    return End(outcome="completed", start=start_digest(start.__contract__.type, pack(start)))


def test_the_digest_is_that_of_the_bytes_that_were_stored() -> None:
    expected = hashlib.sha256(b'stay.asked.v1\n{"guest":"Ada","nights":2,"tags":["sea"]}').hexdigest()[:32]
    assert ended(ASKED).start == expected


def test_the_same_payload_is_the_same_start_and_another_is_not() -> None:
    assert is_started_with(ended(ASKED), Asked(guest="Ada", nights=2, tags=["sea"]))
    for other in (Asked(guest="Ada", nights=3, tags=["sea"]), Asked(guest="Ada", nights=2, tags=[])):
        assert not is_started_with(ended(ASKED), other)


def test_an_end_of_an_earlier_release_tells_nothing() -> None:
    assert is_started_with(End(outcome="completed"), ASKED)


@pytest.mark.parametrize(
    ("since", "is_same"),
    [
        (AskedSince(guest="Ada", nights=2, tags=["sea"]), True),
        (AskedSince(guest="Ada", nights=2, tags=["sea"], breakfast=True), False),
        (AskedSince(guest="Ada", nights=2, tags=["sea"], extras=["dog"]), False),
        (AskedSince(guest="Bob", nights=2, tags=["sea"]), False),
        (AskedAnew(guest="Ada", nights=2, tags=["sea"]), False),
    ],
)
def test_a_field_with_a_default_that_was_added_meanwhile_changes_nothing(since: Event, is_same: bool) -> None:
    assert is_started_with(ended(ASKED), since) is is_same

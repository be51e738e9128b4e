"""Every subject that is built can be read again, and nothing else can."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.contracts import BadIdentity, Forged, SagaKey, wire
from antiphon.contracts.wire import Direction

TOKENS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
KEYS = st.builds(SagaKey.of, TOKENS, TOKENS)
KEY = SagaKey.of("trip", "t1")
README = Path(__file__).parents[2] / "contracts" / "README.md"
OTHER_PARTITION = (KEY.partition + 1) % wire.PARTITIONS


def test_the_partition_is_the_same_in_every_language() -> None:
    """The first byte of what `printf order/order-42 | sha256sum` prints, modulo 64; a change would lose all sagas."""
    assert wire.digest("order", "order-42").hex()[:2] == "b7"
    assert wire.partition_of("order", "order-42") == 55


@given(KEYS, TOKENS, TOKENS, st.sampled_from(["do", "undo"]), st.integers(1, 999_999_999))
def test_commands(key: SagaKey, participant: str, step: str, direction: Direction, attempt: int) -> None:
    subject = wire.command_subject(key, participant, step, direction, attempt)
    assert wire.parse_command(subject) == wire.CommandAddress(key, participant, step, direction, attempt)
    entry = wire.parse_entry(subject)
    assert (entry.saga, entry.kind, entry.command) == (key, "cmd", wire.parse_command(subject))


@given(KEYS, TOKENS)
def test_records_and_ends(key: SagaKey, name: str) -> None:
    assert wire.parse_entry(wire.record_subject(key, name)) == wire.EntryAddress(key, "rec")
    assert wire.parse_entry(wire.end_subject(key)) == wire.EntryAddress(key, "end")


@given(KEYS)
def test_fired_timers_starts_cancels_and_status_requests(key: SagaKey) -> None:
    assert wire.parse_fired(wire.fired_subject(key)) == key
    assert wire.parse_fact(wire.start_subject(key)) == wire.FactAddress(key, "client", "start")
    assert wire.parse_fact(wire.cancel_subject(key)) == wire.FactAddress(key, "client", "cancel")
    assert wire.parse_status(wire.status_subject(key)) == key


@given(KEYS, TOKENS.filter(lambda token: token not in wire.RESERVED), TOKENS, TOKENS, st.integers(1, 999_999_999))
def test_events(key: SagaKey, source: str, event: str, step: str, attempt: int) -> None:
    subject = wire.event_subject(key.path, source, event, step, attempt)
    assert wire.parse_fact(subject) == wire.FactAddress(key, source, event, step, attempt)


@pytest.mark.parametrize("bad", ["", "a.b", "a b", "*", ">", "ä", "x" * 65, "new\nline", "a\n"])
def test_a_bad_saga_id_is_an_error_with_a_name(bad: str) -> None:
    for saga_type, saga_id in (("trip", bad), (bad, "t1")):
        with pytest.raises(BadIdentity, match="must be 1 to 64 characters"):
            SagaKey.of(saga_type, saga_id)


def test_the_longest_id_is_an_id() -> None:
    assert SagaKey.of("trip", "x" * 64).id == "x" * 64


@pytest.mark.parametrize("family", [wire.LOCK, wire.SAGA_TYPE, wire.PARTICIPANT])
@pytest.mark.parametrize("event", ["client.start", "client.cancel", "coordinator.start"])
def test_what_is_no_saga_is_not_started(family: str, event: str) -> None:
    with pytest.raises(Forged, match="no message of the protocol"):
        wire.parse_fact(f"evt.{SagaKey.of(family, 'a').path}.{event}")


@pytest.mark.parametrize("partition", [str(OTHER_PARTITION), f"0{KEY.partition}", "", "x", "64", "-1"])
def test_a_wrong_partition_is_forged(partition: str) -> None:
    path = f"{partition}.trip.t1"
    with pytest.raises(Forged, match=f"the partition of trip/t1 is {KEY.partition}"):
        wire.parse_fact(f"evt.{path}.client.start")
    with pytest.raises(Forged):
        wire.parse_fact(f"evt.{path}.hotel.hotel-booked.book_room.1")
    with pytest.raises(Forged):
        wire.parse_command(f"saga.{path}.c.cmd.hotel.book_room.do.1")
    with pytest.raises(Forged):
        wire.parse_fired(f"saga.{path}.f.next")


@pytest.mark.parametrize("source", sorted(wire.RESERVED))
def test_reserved_names_answer_no_command(source: str) -> None:
    with pytest.raises(Forged):
        wire.parse_fact(f"evt.{KEY.path}.{source}.hotel-booked.book_room.1")


@pytest.mark.parametrize("attempt", ["0", "01", "-1", "1.5", "x", "", "1" * 10, "²"])
def test_an_attempt_is_a_plain_number_from_one(attempt: str) -> None:
    with pytest.raises(Forged):
        wire.parse_fact(f"evt.{KEY.path}.hotel.hotel-booked.book_room.{attempt}")
    with pytest.raises(Forged):
        wire.parse_command(f"saga.{KEY.path}.c.cmd.hotel.book_room.do.{attempt}")


@pytest.mark.parametrize(
    "rest", ["client.start.more", "client.begin", "hotel.start", "client", "", "operator.cancel", "hotel.a.b.1.c"]
)
def test_no_other_subject_is_a_fact(rest: str) -> None:
    with pytest.raises(Forged, match="no message of the protocol"):
        wire.parse_fact(f"evt.{KEY.path}.{rest}")


@pytest.mark.parametrize("rest", ["c", "c.cmd", "c.rec", "c.end.x", "t.next", "c.cmd.hotel.book_room.redo.1"])
def test_no_other_subject_is_an_entry(rest: str) -> None:
    with pytest.raises(Forged):
        wire.parse_entry(f"saga.{KEY.path}.{rest}")


def test_subjects_that_are_too_short_or_of_another_family_are_refused() -> None:
    for parse in (wire.parse_command, wire.parse_entry, wire.parse_fired, wire.parse_fact, wire.parse_status):
        for subject in ("", "saga", "evt", "saga.1", "x.y", "evt.1.2.3.client.start.."):
            with pytest.raises((Forged, BadIdentity)):
                parse(subject)


def test_all_guards_of_a_journal_name_the_same_subjects() -> None:
    expected = f"Nats-Expected-Last-Subject-Sequence-Subject: saga.{KEY.path}.c.>\r\n"
    assert all(wire.guard_header(KEY, sequence).endswith(expected) for sequence in (0, 1, 99))
    assert wire.guard_header(KEY, 7).startswith("Nats-Expected-Last-Subject-Sequence: 7\r\n")
    assert wire.first_timer_guard(KEY).endswith(f"-Subject: saga.{KEY.path}.t.next\r\n")


def test_a_timer_is_rounded_up_so_that_it_is_never_early() -> None:
    assert wire.rfc3339(1_000) == "1970-01-01T00:00:00.000001Z"
    assert wire.rfc3339(1_001) == "1970-01-01T00:00:00.000002Z"
    assert f"@at {wire.rfc3339(1_001)}\r\n" in wire.schedule_header(KEY, 1_001)


def test_the_servers_stamp_is_read_with_and_without_a_domain() -> None:
    stamp = wire.Stamp("EVENTS", "coordinator", 2, 77, 1_700_000_000_000_000_001)
    tail = "EVENTS.coordinator.2.77.5.1700000000000000001.3"
    assert wire.parse_stamp(f"$JS.ACK.{tail}") == stamp
    assert wire.parse_stamp(f"$JS.ACK.hub.ABC.{tail}.rnd") == stamp


def test_a_reaction_is_named_after_what_was_heard_and_where_it_was_said() -> None:
    assert wire.reaction_step("shop-ordered", "") == "on-shop-ordered"
    step = wire.reaction_step("payment-charged", "on-shop-ordered")
    assert step in README.read_text(), "as the protocol's page has it"
    assert wire.is_by_itself(step)
    longest = "x" * (wire.TOKEN_CHARS_MAX - wire.REACTION_STEP_CHARS)
    assert len(wire.reaction_step(longest, step)) == wire.TOKEN_CHARS_MAX


def test_an_event_is_heard_where_its_owner_stores_it() -> None:
    assert wire.heard_filters("shop", "bank", "paid") == ("evt.*.shop.*.bank.paid.>",)
    assert wire.heard_filters("", "bank", "paid") == ("evt.*.*.*.bank.paid.>",)
    assert wire.heard_filters("shop", "client", "ordered") == (
        "evt.*.shop.*.client.start",
        "evt.*.shop.*.client.signal.*.1",
    )


def test_a_consumer_gets_no_filter_that_another_one_covers() -> None:
    everywhere, here = wire.heard_filters("", "bank", "paid"), wire.heard_filters("shop", "bank", "paid")
    other = wire.heard_filters("shop", "bank", "unpaid")
    assert wire.disjoint([*here, *everywhere, *other, *other]) == (*everywhere, *other)

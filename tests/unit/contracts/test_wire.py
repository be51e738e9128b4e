"""Every subject that is built can be read again, and nothing else can."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.contracts import BadIdentity, Forged, SagaKey, clock, headers, identity, stored, subjects
from antiphon.contracts.subjects import Sending
from antiphon.contracts.topology import EXPORTER_CONSUMER, PLATFORM_CONSUMERS, participant_consumers

TOKENS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
KEYS = st.builds(SagaKey.of, TOKENS, TOKENS)
KEY = SagaKey.of("trip", "t1")
README = Path(__file__).parents[3] / "contracts" / "README.md"
OTHER_PARTITION = (KEY.partition + 1) % identity.PARTITIONS


def test_the_partition_is_the_same_in_every_language() -> None:
    """The first byte of what `printf order/order-42 | sha256sum` prints, modulo 64; a change would lose all sagas."""
    assert identity.digest("order", "order-42").hex()[:2] == "b7"
    assert identity.partition_of("order", "order-42") == 55


@given(KEYS, TOKENS, TOKENS, st.sampled_from(["do", "undo", "close"]), st.integers(1, 999_999_999))
def test_commands(key: SagaKey, participant: str, step: str, direction: Sending, attempt: int) -> None:
    subject = subjects.command_subject(key, participant, step, direction, attempt)
    assert subjects.parse_command(subject) == subjects.CommandAddress(key, participant, step, direction, attempt)
    entry = subjects.parse_entry(subject)
    assert (entry.saga, entry.kind, entry.command) == (key, "cmd", subjects.parse_command(subject))


@given(KEYS, TOKENS)
def test_records_and_ends(key: SagaKey, name: str) -> None:
    assert subjects.parse_entry(subjects.record_subject(key, name)) == subjects.EntryAddress(key, "rec")
    assert subjects.parse_entry(subjects.end_subject(key)) == subjects.EntryAddress(key, "end")


@given(KEYS)
def test_fired_timers_starts_cancels_and_status_requests(key: SagaKey) -> None:
    assert subjects.parse_fired(subjects.fired_subject(key)) == key
    assert subjects.parse_fact(subjects.start_subject(key)) == subjects.FactAddress(key, "client", "start")
    assert subjects.parse_fact(subjects.cancel_subject(key)) == subjects.FactAddress(key, "client", "cancel")
    assert subjects.parse_status(subjects.status_subject(key)) == key


@given(KEYS, TOKENS, TOKENS)
def test_what_a_client_with_a_bound_stores_and_where_it_is_copied_to(key: SagaKey, client: str, signal: str) -> None:
    start = subjects.start_subject(key)
    assert subjects.bounded_filter(start, client) == f"from.{client}.{key.path}.start"
    for stored_at in (start, subjects.cancel_subject(key), subjects.signal_subject(key, signal)):
        subject = subjects.bounded_filter(stored_at, client)
        assert subjects.parse_bounded(subject) == subjects.BoundedAddress(client, key, stored_at, stored_at == start)
    for forged in (f"from.{client}.{key.path}.end", f"from.{client}.{key.type}.{key.id}.start", start):
        with pytest.raises(Forged):
            subjects.parse_bounded(forged)


@given(KEYS, TOKENS.filter(lambda token: token not in identity.RESERVED), TOKENS, TOKENS, st.integers(1, 999_999_999))
def test_events(key: SagaKey, source: str, event: str, step: str, attempt: int) -> None:
    subject = subjects.event_subject(key.path, source, event, step, attempt)
    assert subjects.parse_fact(subject) == subjects.FactAddress(key, source, event, step, attempt)


@given(
    st.sampled_from(["forged", "undecodable", "orphan", "unhandled", "fault"]), TOKENS, TOKENS, st.integers(1, 10**18)
)
def test_what_is_parked(kind: str, noticed_by: str, source: str, sequence: int) -> None:
    parked = subjects.parked_subject(kind, noticed_by, source)
    found = subjects.parse_parked(parked)
    assert (found.kind, found.noticed_by, found.source, found.form) == (kind, noticed_by, source, "message")
    more = subjects.parse_parked(subjects.more_subject(parked))
    assert (more.kind, more.noticed_by, more.source, more.form) == (kind, noticed_by, source, "more")
    old = subjects.parse_parked(subjects.old_parked_subject(kind, noticed_by))
    assert (old.kind, old.noticed_by, old.source, old.saga) == (kind, noticed_by, "", None)
    withdrawn = subjects.parse_parked(subjects.withdrawn_subject(noticed_by, "EVENTS", sequence))
    assert (withdrawn.noticed_by, withdrawn.form) == (noticed_by, "withdrawn")


@given(KEYS)
def test_the_index_of_sagas_that_wait_for_a_person(key: SagaKey) -> None:
    found = subjects.parse_parked(subjects.parked_saga_subject(key))
    assert (found.kind, found.noticed_by, found.saga) == ("saga", "coordinator", key)


@pytest.mark.parametrize(
    "subject",
    [
        "parked.saga.inventory.client",
        "parked.saga-more.inventory.client",
        "parked.mad.inventory.client",
        "parked.forged",
        "parked.forged.inventory.*",
        "parked.forged.inventory.client.more",
        "parked.withdrawn.inventory",
        f"parked.saga.{OTHER_PARTITION}.trip.t1",
        "evt.forged.inventory.client",
    ],
)
def test_no_message_of_parked_has_such_a_subject(subject: str) -> None:
    with pytest.raises(Forged):
        subjects.parse_parked(subject)


@pytest.mark.parametrize(
    ("subject", "source"),
    [
        (subjects.event_subject(KEY.path, "hotel", "room-booked", "book_room", 1), "hotel"),
        (subjects.start_subject(KEY), "client"),
        (subjects.command_subject(KEY, "hotel", "book_room", "do", 1), "coordinator"),
        (f"evt.{KEY.path}.*.x", "unknown"),
        ("evt", "unknown"),
    ],
)
def test_who_wrote_a_message_is_read_from_its_subject(subject: str, source: str) -> None:
    assert subjects.source_in(subject) == source


@pytest.mark.parametrize("bad", ["", "a.b", "a b", "*", ">", "ä", "x" * 65, "new\nline", "a\n"])
def test_a_bad_saga_id_is_an_error_with_a_name(bad: str) -> None:
    for saga_type, saga_id in (("trip", bad), (bad, "t1")):
        with pytest.raises(BadIdentity, match="must be 1 to 64 characters"):
            SagaKey.of(saga_type, saga_id)


def test_the_longest_id_is_an_id() -> None:
    assert SagaKey.of("trip", "x" * 64).id == "x" * 64


@pytest.mark.parametrize("family", [identity.LOCK, identity.SAGA_TYPE, identity.PARTICIPANT])
@pytest.mark.parametrize("event", ["client.start", "client.cancel", "coordinator.start"])
def test_what_is_no_saga_is_not_started(family: str, event: str) -> None:
    with pytest.raises(Forged, match="no message of the protocol"):
        subjects.parse_fact(f"evt.{SagaKey.of(family, 'a').path}.{event}")


@pytest.mark.parametrize("partition", [str(OTHER_PARTITION), f"0{KEY.partition}", "", "x", "64", "-1"])
def test_a_wrong_partition_is_forged(partition: str) -> None:
    path = f"{partition}.trip.t1"
    with pytest.raises(Forged, match=f"the partition of trip/t1 is {KEY.partition}"):
        subjects.parse_fact(f"evt.{path}.client.start")
    with pytest.raises(Forged):
        subjects.parse_fact(f"evt.{path}.hotel.hotel-booked.book_room.1")
    with pytest.raises(Forged):
        subjects.parse_command(f"saga.{path}.c.cmd.hotel.book_room.do.1")
    with pytest.raises(Forged):
        subjects.parse_fired(f"saga.{path}.f.next")


@pytest.mark.parametrize("source", sorted(identity.RESERVED))
def test_reserved_names_answer_no_command(source: str) -> None:
    with pytest.raises(Forged):
        subjects.parse_fact(f"evt.{KEY.path}.{source}.hotel-booked.book_room.1")


@pytest.mark.parametrize("attempt", ["0", "01", "-1", "1.5", "x", "", "1" * 10, "²"])
def test_an_attempt_is_a_plain_number_from_one(attempt: str) -> None:
    with pytest.raises(Forged):
        subjects.parse_fact(f"evt.{KEY.path}.hotel.hotel-booked.book_room.{attempt}")
    with pytest.raises(Forged):
        subjects.parse_command(f"saga.{KEY.path}.c.cmd.hotel.book_room.do.{attempt}")


@pytest.mark.parametrize(
    "rest", ["client.start.more", "client.begin", "hotel.start", "client", "", "operator.cancel", "hotel.a.b.1.c"]
)
def test_no_other_subject_is_a_fact(rest: str) -> None:
    with pytest.raises(Forged, match="no message of the protocol"):
        subjects.parse_fact(f"evt.{KEY.path}.{rest}")


@pytest.mark.parametrize("rest", ["c", "c.cmd", "c.rec", "c.end.x", "t.next", "c.cmd.hotel.book_room.redo.1"])
def test_no_other_subject_is_an_entry(rest: str) -> None:
    with pytest.raises(Forged):
        subjects.parse_entry(f"saga.{KEY.path}.{rest}")


def test_subjects_that_are_too_short_or_of_another_family_are_refused() -> None:
    for parse in (
        subjects.parse_command,
        subjects.parse_entry,
        subjects.parse_fired,
        subjects.parse_fact,
        subjects.parse_status,
    ):
        for subject in ("", "saga", "evt", "saga.1", "x.y", "evt.1.2.3.client.start.."):
            with pytest.raises((Forged, BadIdentity)):
                parse(subject)


def test_all_guards_of_a_journal_name_the_same_subjects() -> None:
    expected = f"Nats-Expected-Last-Subject-Sequence-Subject: saga.{KEY.path}.c.>\r\n"
    assert all(headers.guard_header(KEY, sequence).endswith(expected) for sequence in (0, 1, 99))
    assert headers.guard_header(KEY, 7).startswith("Nats-Expected-Last-Subject-Sequence: 7\r\n")
    assert headers.first_timer_guard(KEY).endswith(f"-Subject: saga.{KEY.path}.t.next\r\n")


def test_a_timer_is_rounded_up_so_that_it_is_never_early() -> None:
    assert clock.rfc3339(1_000) == "1970-01-01T00:00:00.000001Z"
    assert clock.rfc3339(1_001) == "1970-01-01T00:00:00.000002Z"
    assert f"@at {clock.rfc3339(1_001)}\r\n" in headers.schedule_header(KEY, 1_001)


def test_the_servers_stamp_is_read_with_and_without_a_domain() -> None:
    stamp = stored.Stamp("EVENTS", "coordinator", 2, 77, 1_700_000_000_000_000_001)
    tail = "EVENTS.coordinator.2.77.5.1700000000000000001.3"
    assert stored.parse_stamp(f"$JS.ACK.{tail}") == stamp
    assert stored.parse_stamp(f"$JS.ACK.hub.ABC.{tail}.rnd") == stamp


def test_a_reaction_is_named_after_what_was_heard_and_where_it_was_said() -> None:
    assert subjects.reaction_step("shop-ordered", "") == "on-shop-ordered"
    step = subjects.reaction_step("payment-charged", "on-shop-ordered")
    assert step in README.read_text(), "as the protocol's page has it"
    assert subjects.is_by_itself(step)
    longest = "x" * (identity.TOKEN_CHARS_MAX - subjects.REACTION_STEP_CHARS)
    assert len(subjects.reaction_step(longest, step)) == identity.TOKEN_CHARS_MAX


def test_an_event_is_heard_where_its_owner_stores_it() -> None:
    assert subjects.heard_filter("shop", "bank", "paid") == "evt.*.shop.*.bank.paid.>"
    assert subjects.heard_filter("", "bank", "paid") == "evt.*.*.*.bank.paid.>"
    assert subjects.heard_filter("shop", "client", "ordered") == "evt.*.shop.*.client.start"
    assert subjects.heard_filter("shop", "client", "hurry", is_signal=True) == "evt.*.shop.*.client.signal.hurry.1"


def test_a_consumer_gets_no_filter_that_another_one_covers() -> None:
    everywhere, here = subjects.heard_filter("", "bank", "paid"), subjects.heard_filter("shop", "bank", "paid")
    other = subjects.heard_filter("shop", "bank", "unpaid")
    assert subjects.disjoint([here, everywhere, other, other]) == (everywhere, other)


def test_kept_schemas_stand_where_no_consumer_and_no_reader_of_journals_finds_a_saga() -> None:
    subject = subjects.schemas_subject("order.v1.7f0c7b067eec", "a07aadea398fd82a")
    assert subject == "saga.schemas.order-v1-7f0c7b067eec.a07aadea398fd82a"
    assert subjects.parse_schemas(subject) == "a07aadea398fd82a"
    consumers = [*PLATFORM_CONSUMERS, EXPORTER_CONSUMER, *participant_consumers("inventory")]
    filters = [each for consumer in consumers for each in consumer.filters]
    filters += [subjects.JOURNALS_FILTER, subjects.ENDS_FILTER, *map(subjects.states_filter, identity.NOT_SAGAS)]
    assert not any(subjects.matches(each, subject) for each in filters)
    assert subjects.matches(subjects.SAGA_FILTER, subject)
    assert not subjects.is_of_a_saga(subject)
    assert subjects.saga_in(subject) is None
    with pytest.raises(Forged):
        subjects.parse_entry(subject)


@given(KEYS, TOKENS)
def test_no_saga_has_the_subject_of_kept_schemas(key: SagaKey, digest: str) -> None:
    subject = subjects.schemas_subject(f"{key.type}.v1.0123456789ab", digest)
    assert not subjects.matches(subjects.journal_filter(key), subject)
    assert len(subject.split(".")) == 4

"""What a coordinator may rely on, whichever store it runs over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import msgspec
import pytest

from antiphon.contracts import SagaKey, identity, subjects, topology
from antiphon.contracts.errors import Ambiguous, Conflict
from antiphon.contracts.payloads import Parked
from antiphon.contracts.stored import AlreadyStored, Delivered, NotRead, Outcome, SagaPages, StoredMessage
from antiphon.contracts.topology import EVENTS, PARKED_PER_SOURCE_MAX, PLATFORM_CONSUMERS, SAGA, participant_consumers
from antiphon.coordinator.runtime.ports import FACTS_READ_MAX, ArmGuard
from tests.conformance.world import World, answer_of, append, appended, fresh_key

STARTS, TIMERS = (each for each in PLATFORM_CONSUMERS if each.name in (topology.STARTS, topology.TIMERS))
SECOND = 1_000_000_000


async def arm(world: World, key: SagaKey, due_ns: int, body: bytes = b"due", guard: ArmGuard = 0) -> Outcome:
    return await answer_of(world, lambda then: world.store.arm(key, due_ns, body, guard, then))


async def read(world: World, key: SagaKey, *expected: str) -> SagaPages:
    def ask(then: Callable[[SagaPages | NotRead], None]) -> None:
        world.store.read(key, list(expected), then)

    pages = await answer_of(world, ask)
    assert isinstance(pages, SagaPages)
    return pages


async def ended_of(world: World, *keys: SagaKey) -> set[SagaKey] | Ambiguous:
    def ask(then: Callable[[set[SagaKey] | Ambiguous], None]) -> None:
        world.store.ended(list(keys), then)

    return await answer_of(world, ask)


class Inbox:
    """The deliveries of one saga; those of other tests are acked away."""

    def __init__(self, *keys: SagaKey) -> None:
        self.paths = tuple(f".{key.path}." for key in keys)
        self.got: list[Delivered] = []

    def take(self, delivery: Delivered) -> None:
        if any(path in delivery.subject for path in self.paths):
            self.got.append(delivery)
        else:
            delivery.ack()


async def test_a_journal_begins_once(world: World) -> None:
    key = fresh_key()
    assert isinstance(await append(world, key, "a", 0), int)
    assert isinstance(await append(world, key, "b", 0), Conflict)


async def test_an_entry_is_appended_only_behind_the_one_its_writer_saw(world: World) -> None:
    key = fresh_key()
    first = await appended(world, key, "a", 0)
    second = await appended(world, key, "b", first)
    assert second > first
    for stale in (0, first, second + 1):
        assert isinstance(await append(world, key, "c", stale), Conflict)
    assert isinstance(await append(world, key, "c", second), int)


async def test_of_two_writers_at_once_one_is_first(world: World) -> None:
    key = fresh_key()
    guard = await appended(world, key, "a", 0)
    outcomes: list[Outcome] = []
    for name in ("left", "right", "middle"):
        world.store.append(key, subjects.record_subject(key, name), b"", guard, False, outcomes.append)
    await world.until(lambda: len(outcomes) == 3)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "Conflict", "int"]


async def test_neither_other_sagas_nor_timers_disturb_a_guard(world: World) -> None:
    key, other = fresh_key(), fresh_key()
    guard = await appended(world, key, "a", 0)
    await appended(world, other, "a", 0)
    assert isinstance(await arm(world, key, world.now_ns() + 3600 * SECOND, guard=guard), int)
    assert isinstance(await append(world, key, "b", guard), int)


async def test_the_first_timer_is_set_once(world: World) -> None:
    key = fresh_key()
    due_ns = world.now_ns() + 3600 * SECOND
    assert isinstance(await arm(world, key, due_ns, guard="first"), int)
    assert isinstance(await arm(world, key, due_ns + SECOND, guard="first"), Conflict)
    assert isinstance(await arm(world, key, due_ns + SECOND), int)


async def test_a_timer_fires_once_and_not_early(world: World) -> None:
    key = fresh_key()
    inbox = Inbox(key)
    await world.consume(TIMERS, inbox.take)
    due_ns = world.now_ns() + SECOND // 2
    await arm(world, key, due_ns, b"what is due", guard="first")
    await world.until(lambda: inbox.got)
    fired = inbox.got[0]
    assert fired.stored_ns >= due_ns
    assert (fired.subject, fired.data) == (subjects.fired_subject(key), b"what is due")
    assert subjects.parse_fired(fired.subject) == key
    fired.ack()


async def test_a_timer_is_not_set_from_an_old_journal(world: World) -> None:
    key = fresh_key()
    due_ns = world.now_ns() + 3600 * SECOND
    assert isinstance(await arm(world, key, due_ns, guard=0), int)
    first = await appended(world, key, "a", 0)
    assert isinstance(await arm(world, key, due_ns, guard=0), Conflict)
    assert isinstance(await arm(world, key, due_ns, guard=first), int)
    assert isinstance(await append(world, key, "b", first), int), "a timer is no entry"


async def last(world: World, subject: str) -> StoredMessage | Ambiguous | None:
    found: list[StoredMessage | Ambiguous | None] = []
    world.store.last(subject, found.append)
    await world.until(lambda: found)
    return found[0]


async def test_the_last_message_of_a_subject_is_read(world: World) -> None:
    key = fresh_key()
    subject = subjects.record_subject(key, "a")
    assert await last(world, subject) is None
    first = await appended(world, key, "a", 0)
    second = await appended(world, key, "a", first)
    found = await last(world, subject)
    assert isinstance(found, StoredMessage)
    assert (found.sequence, found.data) == (second, b"a")


async def test_a_message_is_told_once(world: World) -> None:
    subject = subjects.release_subject(fresh_key())
    assert isinstance(await answer_of(world, lambda then: world.store.tell(subject, b"x", then)), int)
    assert isinstance(await answer_of(world, lambda then: world.store.tell(subject, b"y", then)), AlreadyStored)


async def test_a_timer_that_fired_leaves_the_place_of_the_first_free(world: World) -> None:
    key = fresh_key()
    inbox = Inbox(key)
    await world.consume(TIMERS, inbox.take)
    await arm(world, key, world.now_ns() + SECOND // 10, guard="first")
    await world.until(lambda: inbox.got)
    assert isinstance(await arm(world, key, world.now_ns() + 3600 * SECOND, guard="first"), int)


async def test_a_timer_set_anew_replaces_the_one_before(world: World) -> None:
    key = fresh_key()
    inbox = Inbox(key)
    await world.consume(TIMERS, inbox.take)
    await arm(world, key, world.now_ns() + 3600 * SECOND, b"late")
    await arm(world, key, world.now_ns() + SECOND // 5, b"early")
    await world.until(lambda: inbox.got)
    assert [delivery.data for delivery in inbox.got] == [b"early"]


async def test_the_end_cancels_the_timer(world: World) -> None:
    key, later = fresh_key(), fresh_key()
    inbox = Inbox(key, later)
    await world.consume(TIMERS, inbox.take)
    guard = await appended(world, key, "a", 0)
    await arm(world, key, world.now_ns() + SECOND)
    assert isinstance(await append(world, key, "end", guard, unschedule=True), int)
    await arm(world, later, world.now_ns() + 2 * SECOND)
    await world.until(lambda: inbox.got)
    assert [subjects.parse_fired(delivery.subject) for delivery in inbox.got] == [later]


async def test_an_end_that_loses_against_another_writer_leaves_the_timer_alone(world: World) -> None:
    key = fresh_key()
    inbox = Inbox(key)
    await world.consume(TIMERS, inbox.take)
    guard = await appended(world, key, "a", 0)
    await arm(world, key, world.now_ns() + SECOND // 2, guard=guard)
    assert isinstance(await append(world, key, "end", 0, unschedule=True), Conflict)
    await world.until(lambda: inbox.got)


async def test_which_sagas_have_ended(world: World) -> None:
    ended, open_, unknown = fresh_key(), fresh_key(), fresh_key()
    await append(world, ended, "end", await appended(world, ended, "a", 0))
    await appended(world, open_, "a", 0)
    assert await ended_of(world, ended, open_, unknown) == {ended}
    assert await ended_of(world, unknown) == set()
    assert await ended_of(world) == set()


async def test_a_read_returns_the_whole_journal_in_order(world: World) -> None:
    key = fresh_key()
    guard = 0
    for number in range(30):
        guard = await appended(world, key, f"n{number}", guard)
    await appended(world, fresh_key(), "other", 0)
    await arm(world, key, world.now_ns() + 3600 * SECOND, guard=guard)
    entries = (await read(world, key)).entries
    assert [entry.data for entry in entries] == [f"n{number}".encode() for number in range(30)]
    assert entries[-1].sequence == guard
    assert entries[0].subject == subjects.record_subject(key, "n0")
    assert abs(entries[0].stored_ns - world.now_ns()) < 60 * SECOND


async def facts(world: World, *wanted: str) -> list[StoredMessage]:
    def ask(then: Callable[[list[StoredMessage] | NotRead], None]) -> None:
        world.store.facts(list(wanted), then)

    found = await answer_of(world, ask)
    assert isinstance(found, list)
    return found


async def name_facts(world: World, key: SagaKey, *sequences: int) -> None:
    """Append an entry for each fact, as a coordinator names it."""
    guard = 0
    for number, sequence in enumerate(sequences):
        data = msgspec.json.encode({"cause": f"e{sequence}"})
        subject, told, last = subjects.record_subject(key, f"n{number}"), list[Outcome](), guard
        world.store.append(key, subject, data, last, False, told.append)
        await world.until(lambda told=told: told)  # type: ignore[misc]
        assert isinstance(told[0], int)
        guard = told[0]


async def put_all(world: World, subjects: Iterable[str]) -> list[int]:
    sequences = [await world.put(subject, b"x") for subject in subjects]
    assert all(isinstance(sequence, int) for sequence in sequences)
    return [sequence for sequence in sequences if isinstance(sequence, int)]


async def test_a_read_returns_what_is_expected_and_what_the_journal_names(world: World) -> None:
    key = fresh_key()
    written = [
        subjects.event_subject(key.path, "hotel", "hotel-booked", "book_room", 1),
        subjects.start_subject(key),
        subjects.event_subject(key.path, "stranger", "noise", "book_room", 1),
        subjects.verb_subject(key, "ann", "pause", "1"),
    ]
    sequences = await put_all(world, written)
    assert [each.subject for each in (await read(world, key, written[1], written[0])).events] == written[:2]
    await name_facts(world, key, sequences[1], sequences[3], 10**12)
    assert [each.subject for each in (await read(world, key, written[0])).events] == [
        written[0],
        written[1],
        written[3],
    ]


@pytest.mark.parametrize("source", ["client", "hotel"])
async def test_however_much_was_written_to_a_saga_it_is_read(world: World, source: str) -> None:
    """More than 1,024 subjects: a server counts no more for one read, and says 413 for ever."""
    key = fresh_key()
    (start,) = await put_all(world, [subjects.start_subject(key)])
    noise = [
        subjects.signal_subject(key, f"x{number}")
        if source == "client"
        else subjects.event_subject(key.path, "hotel", "noise", f"on-x{number}", 1)
        for number in range(1030)
    ]
    (first, *_) = await put_all(world, noise)
    (last,) = await put_all(world, [subjects.event_subject(key.path, "hotel", "late", "on-y", 1)])
    await name_facts(world, key, start, first, last)
    heard = subjects.event_filter(key, "hotel", "noise")
    found = (await read(world, key, *subjects.start_subjects(key), heard)).events
    assert [each.sequence for each in found] == [start, first, last]
    assert await facts(world, heard) == []
    assert [each.sequence for each in await facts(world, noise[0], heard)] == [first]


async def test_of_what_a_filter_matches_the_first_are_read(world: World) -> None:
    key = fresh_key()
    sequences = await put_all(
        world,
        [
            subjects.event_subject(key.path, "hotel", "taken", f"on-x{number}", 1)
            for number in range(FACTS_READ_MAX + 3)
        ],
    )
    found = await facts(world, subjects.event_filter(key, "hotel", "taken"))
    assert [each.sequence for each in found] == sequences[:FACTS_READ_MAX]


async def test_any_number_of_subjects_is_read(world: World) -> None:
    key = fresh_key()
    wanted = [subjects.signal_subject(key, f"x{number}") for number in range(2 * FACTS_READ_MAX + 2)]
    sequences = await put_all(world, (wanted[-1], wanted[0]))
    assert [each.sequence for each in await facts(world, *wanted)] == sequences


async def test_any_number_of_facts_that_a_journal_names_is_read(world: World) -> None:
    key = fresh_key()
    sequences = await put_all(world, [subjects.signal_subject(key, f"x{number}") for number in range(230)])
    await name_facts(world, key, *sequences)
    assert [each.sequence for each in (await read(world, key)).events] == sequences


async def test_what_the_leader_has_is_read(world: World) -> None:
    key = fresh_key()

    async def by_leader() -> list[StoredMessage] | NotRead:
        wanted = subjects.start_subjects(key)
        return await answer_of(
            world,
            lambda then: world.store.facts_by_leader(wanted, then),
        )

    assert await by_leader() == []
    await world.put(subjects.start_subject(key), b"\x00{x")
    found = await by_leader()
    assert isinstance(found, list)
    assert found == await facts(world, subjects.start_subject(key))
    assert found[0].data == b"\x00{x"


async def test_a_saga_nobody_started_is_empty(world: World) -> None:
    key = fresh_key()
    assert await read(world, key, *subjects.start_subjects(key)) == SagaPages([], [])


async def test_events_take_one_message_a_subject(world: World) -> None:
    key = fresh_key()
    assert isinstance(await world.put(subjects.start_subject(key), b"first"), int)
    assert isinstance(await world.put(subjects.start_subject(key), b"second"), AlreadyStored)
    assert [event.data for event in (await read(world, key, *subjects.start_subjects(key))).events] == [b"first"]


async def test_parked_takes_many_messages_of_one_kind(world: World) -> None:
    for number in (1, 2):
        parked = Parked(
            kind="forged",
            reason="r",
            noticed_by="coordinator",
            stream="EVENTS",
            sequence=number,
            subject="evt",
            data=b"\x00",
        )

        assert isinstance(await park(world, parked), int)


async def test_the_first_thousand_parked_messages_of_a_kind_and_source_stay(world: World) -> None:
    flooded, other = (
        Parked(
            kind="orphan",
            reason="r",
            noticed_by="coordinator",
            stream="EVENTS",
            sequence=1,
            subject=subjects.event_subject(fresh_key().path, source, "room-booked", "book_room", 1),
            data=b"",
        )
        for source in ("hotel", "airline")
    )
    outcomes = [await park(world, flooded) for _ in range(PARKED_PER_SOURCE_MAX + 2)]
    assert [isinstance(outcome, int) for outcome in outcomes] == [True] * PARKED_PER_SOURCE_MAX + [False] * 2
    assert isinstance(outcomes[-1], AlreadyStored)
    assert isinstance(await park(world, other), int)


async def park(world: World, parked: Parked) -> Outcome:
    return await answer_of(world, lambda then: world.store.park(parked.destination, parked.encode(), then))


async def test_a_delivery_says_where_the_message_is_stored(world: World) -> None:
    key = fresh_key()
    inbox = Inbox(key)
    sequence = await world.put(subjects.start_subject(key), b"x")
    await world.consume(STARTS, inbox.take)
    await world.until(lambda: inbox.got)
    got = inbox.got[0]
    stream = world.store.pairs.stream_of(EVENTS, key)
    assert (got.stream, got.subject, got.data, got.deliveries) == (stream, subjects.start_subject(key), b"x", 1)
    assert got.sequence == sequence
    assert got.stored_ns == (await read(world, key, got.subject)).events[0].stored_ns
    got.ack()


async def test_what_is_handed_back_comes_again_after_the_delay(world: World) -> None:
    key = fresh_key()
    inbox = Inbox(key)
    await world.consume(STARTS, inbox.take)
    await world.put(subjects.start_subject(key), b"x")
    await world.until(lambda: inbox.got)
    handed_back_ns = world.now_ns()
    inbox.got[0].hand_back(0.5)
    await world.until(lambda: len(inbox.got) == 2)
    assert world.now_ns() - handed_back_ns >= SECOND // 2
    assert inbox.got[1].deliveries == 2
    inbox.got[1].ack()


async def test_what_is_not_acked_comes_again_after_the_ack_wait_and_what_is_does_not(world: World) -> None:
    lost, kept = fresh_key(), fresh_key()
    inbox = Inbox(lost, kept)
    await world.consume(STARTS, inbox.take)
    await world.put(subjects.start_subject(lost), b"x")
    await world.put(subjects.start_subject(kept), b"x")
    await world.until(lambda: len(inbox.got) == 2)
    held_ns = world.now_ns()
    next(d for d in inbox.got if d.subject == subjects.start_subject(kept)).ack()
    await world.until(lambda: len(inbox.got) == 3)
    assert world.now_ns() - held_ns >= (STARTS.ack_wait_seconds - 1) * SECOND
    assert (inbox.got[2].subject, inbox.got[2].deliveries) == (subjects.start_subject(lost), 2)
    inbox.got[2].ack()


# --- halts ------------------------------------------------------------------------------------------------------------


async def states_of(world: World, family: str) -> list[StoredMessage]:
    def ask(then: Callable[[list[StoredMessage] | Ambiguous], None]) -> None:
        world.store.states(family, then)

    found = await answer_of(world, ask)
    assert isinstance(found, list)
    return found


async def test_the_state_of_a_saga_type_is_read_with_those_of_all_others(world: World) -> None:
    keys = [SagaKey.of(identity.SAGA_TYPE, fresh_key().id) for _ in range(2)]
    guard = 0
    for data in (b"first", b"second"):
        for key in keys:
            subject, last_sequence = subjects.state_subject(key), guard if key == keys[0] else 0

            def ask(
                then: Callable[[Outcome], None],
                key: SagaKey = key,
                subject: str = subject,
                data: bytes = data,
                last_sequence: int = last_sequence,
            ) -> None:
                world.store.append(key, subject, data, last_sequence, False, then)

            outcome = await answer_of(world, ask)
            if key == keys[0]:
                assert isinstance(outcome, int)
                guard = outcome
    found = {message.subject: message.data for message in await states_of(world, identity.SAGA_TYPE)}
    assert [found[subjects.state_subject(key)] for key in keys] == [b"second", b"first"]
    assert not {message.subject for message in await states_of(world, identity.PARTICIPANT)} & set(found)


async def test_the_starts_of_a_type_come_in_pages_in_their_order(world: World) -> None:
    saga_type = f"walk{fresh_key().id.replace('-', '')}"
    keys = [SagaKey.of(saga_type, f"w{number}") for number in range(450)]
    for number, key in enumerate(keys):
        await world.put(subjects.start_subject(key, identity.COORDINATOR if number % 3 == 0 else identity.CLIENT), b"x")
        if number % 50 == 0:
            await world.put(subjects.start_subject(fresh_key()), b"x")
    streams = world.store.pairs.events
    for stream in streams:
        mine = [key.id for key in keys if world.store.pairs.stream_of(EVENTS, key) == stream]
        seen, pages = await starts_of(world, stream, saga_type)
        assert seen == mine
        assert pages > 1 or len(streams) > 1


async def starts_of(world: World, stream: str, saga_type: str) -> tuple[list[str], int]:
    """The ids of the sagas of a type whose starts a stream has, and in how many pages they came."""
    seen, after, pages = list[str](), 0, 0
    while True:

        def ask(then: Callable[[list[StoredMessage] | Ambiguous], None], after: int = after) -> None:
            world.store.starts(stream, saga_type, after, then)

        page = await answer_of(world, ask)
        assert isinstance(page, list)
        if not page:
            return seen, pages
        pages += 1
        after = page[-1].sequence
        seen += [message.subject.split(".")[3] for message in page]


async def is_paused(world: World, consumer: str, key: SagaKey) -> bool | Ambiguous | None:
    def ask(then: Callable[[bool | Ambiguous | None], None]) -> None:
        world.store.is_paused(world.store.pairs.stream_of(SAGA, key), consumer, then)

    return await answer_of(world, ask)


async def test_a_consumer_that_is_paused_delivers_nothing_and_then_goes_on_at_once(world: World) -> None:
    key = fresh_key()
    inbox = Inbox(key)
    consumer = participant_consumers("hotel")[0]
    await world.consume(consumer, inbox.take)

    def pause(paused: bool) -> Callable[[Callable[[Ambiguous | None], None]], None]:
        return lambda then: world.store.pause(world.store.pairs.stream_of(SAGA, key), consumer.name, paused, then)

    assert await is_paused(world, consumer.name, key) is False
    for _ in range(2):
        assert await answer_of(world, pause(True)) is None
    assert await is_paused(world, consumer.name, key) is True
    other = fresh_key()
    witness = Inbox(other)
    await world.consume(participant_consumers("airline")[0], witness.take)
    for whose, subject in ((key, "hotel"), (other, "airline")):
        entry = subjects.command_subject(whose, subject, "book_room", "do", 1)

        def ask(then: Callable[[Outcome], None], whose: SagaKey = whose, entry: str = entry) -> None:
            world.store.append(whose, entry, b"x", 0, False, then)

        assert isinstance(await answer_of(world, ask), int)
    await world.until(lambda: witness.got)
    assert inbox.got == []
    assert await answer_of(world, pause(False)) is None
    await world.until(lambda: inbox.got, seconds=3)
    assert await is_paused(world, consumer.name, key) is False


async def test_there_is_no_pause_for_a_consumer_that_is_not_there(world: World) -> None:
    assert await is_paused(world, "nobody", fresh_key()) is None


async def test_the_state_of_a_lock_takes_the_place_of_the_one_before_under_its_guard(world: World) -> None:
    lock = SagaKey.of(identity.LOCK, fresh_key().id)
    subject = subjects.state_subject(lock)

    async def write(data: bytes, guard: int) -> Outcome:
        return await answer_of(world, lambda then: world.store.append(lock, subject, data, guard, False, then))

    first = await write(b"1", 0)
    assert isinstance(first, int)
    assert isinstance(await write(b"2", 0), Conflict)
    second = await write(b"2", first)
    assert isinstance(second, int)
    assert isinstance(await write(b"3", first), Conflict)
    found = await last(world, subject)
    assert isinstance(found, StoredMessage)
    assert (found.sequence, found.data) == (second, b"2")


async def test_what_coordinators_tell_each_other_is_read_with_a_saga(world: World) -> None:
    key = fresh_key()
    told = [
        subjects.child_subject(key, "completed", "pack", 1),
        subjects.granted_subject(key, SagaKey.of(identity.LOCK, "k")),
        subjects.verb_subject(key, "ann", "pause", "1"),
    ]
    for subject in told:
        assert isinstance(await answer_of(world, partial(world.store.tell, subject, b"x")), int)
    assert [event.subject for event in (await read(world, key, *told)).events] == told

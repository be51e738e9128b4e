"""One fact on its way into a journal: find the history, plan, have the plan stored, then ack.

Whatever goes wrong (a conflict, a lost answer, a crash) costs nothing but another look, because nothing is remembered
that the streams do not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import structlog

from antiphon.contracts.envelope import decode
from antiphon.contracts.errors import Ambiguous, Conflict, Unusable
from antiphon.contracts.identity import CLIENT, COORDINATOR, PARTICIPANT, SagaKey
from antiphon.contracts.payloads import End, parked_kind, start_digest
from antiphon.contracts.stored import Delivered, NotRead, StoredMessage, TooManySubjects
from antiphon.contracts.subjects import (
    FactAddress,
    ParkedKind,
    parse_fact,
    start_subject,
    start_subjects,
)
from antiphon.contracts.topology import EVENTS
from antiphon.link.faults import say
from antiphon.link.killpoints import reached

from ..decision.absorb import is_ahead, is_beyond
from ..decision.accept import accept
from ..decision.facts import Answer, ChildEnded, Fact, Start, Tick, Unread, is_start
from ..decision.fold import Unfoldable
from ..decision.history import History, begin
from ..decision.pause import read_pause_states, standing_still
from ..decision.plan import plan
from ..decision.reads import early_subjects, is_heard_early
from ..decision.replay import OtherDefinition, Purged, Replayed
from ..decision.timeouts import late
from ..decision.unread import counts
from ..definition.definition import Definition
from ..definition.versions import Versions
from .journals import Journals
from .parking import HAND_BACK_SECONDS, Parking
from .paused_types import PausedTypes
from .writes import Writes

log = structlog.get_logger()

TRIES_MAX: Final = 6
"""Conflicts in a row before a fact is handed back: others are busy with this saga, or the reads are old."""

PAUSE_SECONDS: Final = 0.002
"""After a second conflict so long, and twice as long after each further one, is left to the other coordinator."""

CONFLICT_SECONDS: Final = 0.035
"""How soon a fact comes again that lost all its appends to a busy saga: about when the others have stored theirs."""

DELIVERIES_MAX: Final = 10
"""After so many deliveries a fact that no coordinator here can handle is parked."""

EARLIER_MAX: Final = 8
"""So many earlier facts of a choreography are recorded before a later one. Each is read for by itself, so that of a
flood all would cost the square of its length; those beyond have deliveries of their own."""

STILL_SECONDS: Final = 15.0
"""How soon a saga is looked at again whose step waits for a paused participant; an answer after a resume is sooner."""

LAG_DELIVERIES: Final = 2
"""At so many deliveries a fact is parked whose saga has no start, or whose command is not in the journal: a second
earlier it may have been ahead of these."""


class FactHandler:
    """A fact, the delivery that brought it, and how far it has come. Any error on the way ends in `failed`.

    Args:
        journals: the coordinator's.
        paused_types: says whether commands may be sent, and remembers the saga if not.
        parking: takes the delivery if it is no fact, or if handling it raises.
        key: the saga's.
        versions: the saga type's.
        delivery: is acked once all that the fact asks for is durable.
        address: of a message of EVENTS, its subject; it becomes a fact once the saga's definition is known.
        fact: of any other delivery.
    """

    __slots__ = (
        "_accused",
        "_address",
        "_before",
        "_definition",
        "_delivery",
        "_fact",
        "_has_begun_saga",
        "_is_start",
        "_journals",
        "_key",
        "_parked",
        "_parking",
        "_paused_types",
        "_tries",
        "_versions",
    )

    def __init__(
        self,
        journals: Journals,
        paused_types: PausedTypes,
        parking: Parking,
        key: SagaKey,
        versions: Versions,
        delivery: Delivered,
        address: FactAddress | None = None,
        fact: Fact | None = None,
    ) -> None:
        self._journals, self._paused_types, self._parking = journals, paused_types, parking
        self._key, self._versions = key, versions
        self._delivery, self._address, self._fact = delivery, address, fact
        self._is_start = address is not None and address.is_start
        self._definition: Definition | None = None
        self._before: History | None = None
        """The history before the fact, once the plan is made."""
        self._parked = self._accused = ""
        self._has_begun_saga = False
        """Whether the start was taken in before this fact: once is enough, whatever a replica that lags says then."""
        self._tries = 0

    # --- knowing the history ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Handle the fact, under a guard of its own: the caller may have another one in hand."""
        self._journals.store.guard.call(self, self.run)

    def run(self) -> None:
        """Go on from the cache if it holds enough, else from a read.

        A tick that finds nothing due adds nothing to the journal, so that no guard would tell it that the cache is old.
        """
        case = self._journals.cache.get(self._key)
        if case is None or not self._versions.is_led:
            self._use_closed()
            return
        if isinstance(self._fact, Tick):
            self._read()
            return
        fact = self._accepted(case.history.definition)
        if fact is None:
            return
        if isinstance(fact, Unread):
            self._read()  # whether it counts is not to be told by what may be old
        elif not case.is_settled:
            case.waiting.append(self.begin)
        elif isinstance(fact, Answer) and fact.command > case.history.sequence:
            self._read()  # the command that it answers is newer than what is kept
        else:
            self._go_on_from(case.history, fact)

    def _use_closed(self) -> None:
        """Use a history that no fact like this one can change any more, if one is kept; else read."""
        history = self._journals.cache.closed(self._key)
        if history is None:
            self._begin_or_read()
            return
        fact = self._accepted(history.definition)
        if fact is None:
            return
        if history.end is not None or is_beyond(history, fact):
            self._go_on_from(history, fact)
        else:
            self._begin_or_read()

    def _accepted(self, definition: Definition) -> Fact | None:
        """The fact, read by a definition; None after the delivery was parked, because it is none."""
        address, delivery = self._address, self._delivery
        if address is None or self._definition is definition:
            return self._fact
        try:
            self._fact = accept(
                definition, address, delivery.data, delivery.subject, delivery.sequence, delivery.stored_ns
            )
        except Unusable as error:
            self._parking.park(delivery, parked_kind(error), str(error))
            return None
        self._definition = definition
        return self._fact

    def _begin_or_read(self) -> None:
        # Nothing is read for a new saga: if it is not new after all, the guard of its first entry says so.
        if not self._is_start or self._delivery.deliveries != 1:
            self._read()
        elif (fact := self._accepted(self._versions.newest)) is not None:
            self._go_on_from(begin(self._key, self._versions.newest), fact)

    def _read(self) -> None:
        """Read the saga, or wait for another handler's read of it: of several that read at once all but one would meet
        a conflict."""
        cache = self._journals.cache
        if cache.is_read(self._key, self.begin):
            return
        cache.forget(self._key)
        self._journals.read(self._key, self._versions, self._on_read)

    def _on_read(self, result: Replayed | Exception) -> None:
        try:
            self._go_on_with(result)
        finally:
            self._journals.cache.was_read(self._key)

    def _go_on_with(self, result: Replayed | Exception) -> None:
        match result:
            case Replayed(history=history):
                fact = self._accepted(history.definition)
                if fact is None:
                    return
                self._keep(history)
                earlier = [] if history.end else self._earlier(fact, result)
                if earlier:
                    self._take_first(earlier)
                elif history.entries or isinstance(fact, Tick) or is_start(fact):
                    self._go_on_from(history, fact)
                else:
                    self._look_for_the_start()
            case Ambiguous():
                self._hand_back(str(result))
            case TooManySubjects():  # asked again it would be the same
                self._parking.park(self._delivery, "fault", f"saga {self._key} cannot be read: {result}")
            case Unfoldable():  # a replica lags, or EVENTS was purged
                self._give_up_after(DELIVERIES_MAX, "unhandled", str(result))
            case Purged(is_certain=False) if self._delivery.deliveries < DELIVERIES_MAX:
                self._hand_back(str(result))
            case Purged(end=end):
                self._meet(end)
            case OtherDefinition():
                self._give_up_after(DELIVERIES_MAX, "unhandled", str(result))
            case Unusable():
                self._give_up_after(DELIVERIES_MAX, "undecodable", f"an entry of its journal cannot be read: {result}")
            case _:
                self.failed(result)

    def _keep(self, history: History) -> None:
        """Keep what was read, for other facts of the same saga."""
        cache = self._journals.cache
        if history.end is not None or (history.more and not history.definition.is_led):
            cache.keep_closed(self._key, history)
        elif history.entries and history.definition.is_led:
            cache.keep(self._key, history)

    # --- a saga without a start ---------------------------------------------------------------------------------------

    def _look_for_the_start(self) -> None:
        """Neither a journal nor a start was read. The second time the leader is asked, which lags behind nobody."""
        if (
            self._delivery.deliveries < LAG_DELIVERIES
        ):  # not logged: thousands may come, and in a second they are parked
            self._delivery.hand_back(self._by_lot(HAND_BACK_SECONDS))
        else:
            self._journals.store.facts_by_leader(start_subjects(self._key), self._on_start)

    def _on_start(self, found: list[StoredMessage] | NotRead) -> None:
        if not isinstance(found, list):
            self._hand_back(str(found))
        elif starts := self._starts_in(found):
            self._take_first(starts)
        elif self._waits_for_start():
            self._delivery.ack()  # whoever takes the start in reads it with what else EVENTS holds of the saga
        else:
            self._parking.park(self._delivery, "orphan", f"saga {self._key} was never started")

    def _waits_for_start(self) -> bool:
        """Whether this is a signal that its client has sent before the saga on purpose."""
        with suppress(Unusable):
            address = parse_fact(self._delivery.subject)
            is_signal = (address.source, address.event) == (CLIENT, "signal")
            return is_signal and decode(self._delivery.data, self._delivery.subject).early
        return False

    def _starts_in(self, found: list[StoredMessage]) -> list[Fact]:
        """The starts in these messages; what is none is parked by whoever it is delivered to."""
        starts: list[Fact] = []
        for each in found:
            with suppress(Unusable):
                address = parse_fact(each.subject)
                newest = self._versions.newest
                starts.append(accept(newest, address, each.data, each.subject, each.sequence, each.stored_ns))
        return starts

    def _earlier(self, fact: Fact, result: Replayed) -> list[Fact]:
        """The unnamed facts that come before this one. Of a saga that is led, the start that opens its journal; of a
        choreography, the start, those at earlier places in the stream, and before a tick all."""
        if is_start(fact):
            return []
        if result.history.definition.is_led:
            is_open = bool(result.history.entries) or isinstance(fact, Tick) or self._has_begun_saga
            return [] if is_open else [each for each in result.unnamed if is_start(each)]
        if not result.history.entries and not any(map(is_start, result.unnamed)):
            return []  # nobody started it: earlier facts have no more to say than this one
        earlier = [
            each
            for each in result.unnamed
            if is_start(each)
            or isinstance(fact, Tick)
            or (not isinstance(each, Tick) and each.sequence < fact.sequence)
        ]
        return [] if self._has_begun_saga else earlier[:EARLIER_MAX]

    def _meet(self, end: End) -> None:
        """The saga was purged but for its end, after which nothing follows. A start with another payload is refused to
        whoever stored it and waits for the result, by the digest in the end."""
        delivery = self._delivery
        if not self._is_start or not end.start:
            delivery.ack()
            return
        try:
            start = decode(delivery.data, delivery.subject)
        except Unusable as error:
            self._parking.park(delivery, parked_kind(error), str(error))
            return
        if start_digest(start.type, start.data) != end.start:
            why = "it was started with another payload before, and has ended; use another id"
            log.warning("start.refused", saga=str(self._key), why=why)
        delivery.ack()

    def _take_first(self, facts: list[Fact]) -> None:
        """Record earlier facts first: the start, which another consumer brings, perhaps much later; of a choreography
        all, since nobody asks for the entries that its journal lacks, and the event that ends it closes the journal."""
        self._has_begun_saga = True
        self._catch_up(facts, self.run)

    def _catch_up(self, facts: list[Fact], then: Callable[[], None]) -> None:
        """Record other facts of the saga, then go on; have the delivery come again where that fails."""

        def go_on(is_durable: bool) -> None:
            if is_durable:
                then()
            else:
                self._hand_back("what was said before could not be recorded", catch_up.delay_seconds)

        catch_up = CatchUp(self._journals, self._paused_types, self._parking, self._key, self._versions, go_on)
        catch_up.take(facts)

    # --- performing the plan ------------------------------------------------------------------------------------------

    def _go_on_from(self, history: History, fact: Fact) -> None:
        if isinstance(fact, Unread) and fact.sequence not in history.named and not counts(history, fact):
            self._set_aside(history, fact)
            return
        if isinstance(fact, Answer) and _answers_nothing(history, fact):
            reason = (
                f"it answers a command at {fact.command}, and the journal of {self._key} ends at {history.sequence}"
            )
            self._give_up_after(LAG_DELIVERIES, "forged", reason)
        elif isinstance(fact, Answer | ChildEnded) and is_ahead(history, fact):
            self._leave_for_later(fact)
        elif not history.entries and isinstance(fact, Start) and self._may_be_refused(history, fact):
            self._judge(history, fact)
        elif isinstance(fact, Tick) and late(history, fact.at_ns):
            self._look_at_pauses(history, self._by_now(fact))
        else:
            self._plan(history, fact)

    def _leave_for_later(self, fact: Answer | ChildEnded) -> None:
        """Record no answer to what the journal has not sent: the sweeper looks for it once that is sent. Acked only
        where no replica lags for so long: what was sent may have an answer that obliges to tell others."""
        if 0 < self._delivery.deliveries < DELIVERIES_MAX:
            self._hand_back(f"it answers attempt {fact.attempt} of {fact.step}, which the journal does not have")
            return
        if self._delivery.deliveries:
            log.warning("answer.ahead", saga=str(self._key), step=fact.step, subject=self._delivery.subject)
        self._delivery.ack()

    def _may_be_refused(self, history: History, fact: Start) -> bool:
        """Whether a start is a client's, of a saga that a coordinator leads: nobody can keep participants from reacting
        to the start of another, and a child belongs to a saga that has begun."""
        is_led = history.definition.is_led
        return is_led and fact.parent is None and self._journals.admission.judges(self._key.type)

    def _judge(self, history: History, fact: Start) -> None:
        """Begin the saga, or refuse to."""

        def go_on(refusal: str | None) -> None:
            if refusal is None:
                self._hand_back("which sagas of its type are open could not be found out")
            else:
                self._plan(history, fact, refusal)

        self._journals.admission.judge(self._key, fact.sequence, go_on)

    def _look_at_pauses(self, history: History, tick: Tick) -> None:
        """Let time come, unless a step is due whose participant is paused: then the time is put off."""

        def on_states(found: list[StoredMessage] | Ambiguous) -> None:
            if isinstance(found, Ambiguous):
                self._hand_back(str(found))
            elif still := standing_still(late(history, tick.at_ns), read_pause_states(found), tick.at_ns):
                waits_for = sorted({each.participant for each in still})
                log.debug("saga.stands_still", saga=str(self._key), waits_for=waits_for)
                self._put_off()
            else:
                self._plan(history, tick)

        self._journals.store.states(PARTICIPANT, on_states)

    def _put_off(self) -> None:
        """Have the timer come again later. A look at the saga, which the sweeper takes anyway, is over."""
        if self._delivery.deliveries:
            self._delivery.hand_back(STILL_SECONDS)
        else:
            self._delivery.ack()

    def _by_now(self, tick: Tick) -> Tick:
        """The tick of a timer; one that was put off tells what time it is now."""
        is_again = self._delivery.deliveries > 1
        return Tick(max(tick.at_ns, self._journals.now_ns())) if is_again else tick

    def _plan(self, history: History, fact: Fact, refusal: str = "") -> None:
        is_repeated = self._tries > 0 or self._delivery.deliveries > 1
        hold = self._paused_types.paused.get(self._key.type, "")
        if hold:
            self._paused_types.hold_back(self._key)
        journals = self._journals
        now, author = journals.store.now(), journals.author()
        what = plan(history, fact, now, is_repeated, hold, author, journals.sampling_ratio, refusal)
        if what.fault and what.error is not None:
            say("saga.faulted", what.error, saga=str(self._key), fault=what.fault)
        elif what.fault:
            log.error("saga.faulted", saga=str(self._key), fault=what.fault)
        self._parked, self._accused, self._before = what.parked, what.accused, history
        Writes(self, journals, self._key, what, history.sequence).begin()

    def _set_aside(self, history: History, fact: Unread) -> None:
        """Park a message that cannot be read and does not count, unless its command may not have been seen yet."""
        is_ahead = fact.command > history.sequence and history.end is None
        self._give_up_after(LAG_DELIVERIES if is_ahead else 0, "undecodable", fact.reason)

    def all_stored(self) -> None:
        """Every part of the plan is durable, and so is the fact."""
        reached("coordinator.appended")
        self._count()
        if self._accused and self._delivery.deliveries:  # a look at the saga parks nothing: that is for the delivery
            self._parking.park(self._delivery, "fault", self._accused, stays=True)
        elif self._parked:
            self._parking.park_saga(self._key, self._delivery, self._parked)
        elif self._is_start and self._has_listeners():
            self._take_early()
        else:
            self._delivery.ack()

    # --- what was said before the saga began --------------------------------------------------------------------------

    def _has_listeners(self) -> bool:
        """Whether others may have said something to the saga before it began."""
        return self._definition is not None and is_heard_early(self._definition)

    def _take_early(self) -> None:
        """Take in what was stored for the saga before it began, however long before: it was delivered in vain."""
        assert self._definition is not None
        self._journals.store.facts(early_subjects(self._key, self._definition), self._on_early)

    def _on_early(self, found: list[StoredMessage] | NotRead) -> None:
        if not isinstance(found, list):
            self._hand_back(str(found))
            return
        facts = [fact for each in found if each.sequence < self._delivery.sequence for fact in self._facts_in(each)]
        self._catch_up(facts, self._delivery.ack)

    def _facts_in(self, message: StoredMessage) -> list[Fact]:
        """The fact in a message; nothing, where it is none or its saga stands still by it: it was parked."""
        assert self._definition is not None
        with suppress(Unusable):
            address = parse_fact(message.subject)
            at, when = message.sequence, message.stored_ns
            fact = accept(self._definition, address, message.data, message.subject, at, when)
            return [] if isinstance(fact, Unread) else [fact]
        return []

    def _count(self) -> None:
        """Count the fact: as a repeated one, or as the answer to a step."""
        counts, fact, before = self._journals.counts, self._fact, self._before
        if self._delivery.deliveries > 1:
            counts.add("redeliveries", COORDINATOR)
        if before is None or fact is None or isinstance(fact, Tick):
            return
        if fact.sequence in before.named:
            counts.add("duplicates", COORDINATOR)
        elif counts.record is not None and isinstance(fact, Answer) and (step := before.steps.get(fact.step)):
            seconds = (fact.at_ns - step.sent_ns) / 1e9
            name = before.definition.step(fact.step).name
            counts.took("step_seconds", seconds, self._key.type, name, fact.direction, fact.kind)

    def not_stored(self, outcome: Exception) -> None:
        """Another coordinator appended first, or the answer was lost: read the journal again."""
        if isinstance(outcome, Conflict):
            self._journals.counts.add("conflicts")
        if not isinstance(outcome, Conflict):
            self._hand_back(str(outcome))
            return
        if self._tries >= TRIES_MAX:
            self._hand_back(str(outcome), CONFLICT_SECONDS)
            return
        self._tries += 1
        if self._tries == 1:
            self._read()
        else:
            self._journals.store.later(self._by_lot(PAUSE_SECONDS * 2**self._tries), self.begin)

    def _by_lot(self, seconds: float) -> float:
        """About so long, and different from the pause of another fact of the same saga."""
        return seconds * (0.5 + self._delivery.sequence * 7 % 16 / 16)

    # --- other ends ---------------------------------------------------------------------------------------------------

    def _hand_back(self, why: str, seconds: float = HAND_BACK_SECONDS) -> None:
        log.info("fact.handed_back", saga=str(self._key), why=why, subject=self._delivery.subject)
        self._delivery.hand_back(self._by_lot(seconds))

    def failed(self, error: BaseException) -> None:
        """Have the fact come again, or park it: handling it raised."""
        self._parking.faulty(self._delivery, error)
        # Its entry may be pending there for ever, and others wait for that.
        self._journals.cache.forget(self._key)
        self._journals.cache.was_read(self._key)

    def _give_up_after(self, deliveries_max: int, kind: ParkedKind, reason: str) -> None:
        if self._delivery.deliveries < deliveries_max:
            self._hand_back(reason)
        else:
            self._parking.park(self._delivery, kind, reason)


def _answers_nothing(history: History, fact: Answer) -> bool:
    """Whether somebody of whom no more is recorded answers a command that the journal, as it was read, does not have.
    Recorded, that would be guarded; acked without an entry it could be lost, where the read is old."""
    is_ahead = fact.command > history.sequence and history.end is None
    return is_ahead and fact.sequence not in history.named and is_beyond(history, fact)


class CatchUp:
    """A saga looked at although nothing was delivered for it: facts taken in as if each were delivered, one after the
    other is durable.

    An error on the way ends this look at this saga, and nothing that its caller has in hand.

    Args:
        then: called once, with whether all of it is durable.
    """

    data, sequence, stored_ns = b"", 0, 0
    deliveries = 0  # nothing is given up by a review; that is for the delivery that brings the fact itself

    def __init__(
        self,
        journals: Journals,
        paused_types: PausedTypes,
        parking: Parking,
        key: SagaKey,
        versions: Versions,
        then: Callable[[bool], None],
    ) -> None:
        self._journals, self._paused_types, self._parking = journals, paused_types, parking
        self._key, self._versions = key, versions
        self._facts: Iterator[Fact] = iter(())
        self._guard = journals.store.guard
        self._caller = self._guard.current
        self._then: Callable[[bool], None] | None = then
        self.subject = start_subject(key)
        self.delay_seconds = HAND_BACK_SECONDS
        """How soon it is worth while to try again what could not be recorded."""

    @property
    def stream(self) -> str:
        """Where facts of the saga are."""
        return self._journals.store.pairs.stream_of(EVENTS, self._key)

    def review(self) -> None:
        """Read the saga, and take in the facts that its journal does not name, and the time by this process's clock."""
        self._guard.call(self, self._journals.look, self._key, self._versions, self._on_read)

    def _on_read(self, result: Replayed | Exception) -> None:
        if isinstance(result, Replayed):
            self.take([*result.unnamed, Tick(self._journals.now_ns())])
        else:
            self._journals.say_if_lacking(self._key, result)
            self.hand_back()

    def take(self, facts: list[Fact]) -> None:
        """Take facts in, in this order."""
        self._facts = iter(facts)
        self.ack()

    def ack(self) -> None:
        """Go on with the next fact, if there is one."""
        fact = next(self._facts, None)
        if fact is None:
            self._end(True)
        else:
            FactHandler(
                self._journals, self._paused_types, self._parking, self._key, self._versions, self, fact=fact
            ).begin()

    def hand_back(self, delay_seconds: float = 0.0) -> None:
        """Leave the rest for another look."""
        self.delay_seconds = delay_seconds
        self._end(False)

    def in_progress(self) -> None:
        """A review has no ack wait."""

    def failed(self, error: BaseException) -> None:
        """Leave the saga for another look: reading it raised."""
        say("review.faulty", error, saga=str(self._key))
        self._end(False)

    def _end(self, is_durable: bool) -> None:
        """Go back to the caller, and to what it has in hand."""
        then, self._then = self._then, None
        if then is not None:
            self._guard.call(self._caller, then, is_durable)

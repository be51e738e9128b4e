"""An operator's request to pause or resume a saga type or a participant, on its way to where it holds.

The order is that of all facts: read, decide, append under the guard, act, ack. What is acted on is the state and not
the request, and afterwards the state is read once more, so that of two coordinators with opposite requests the one that
is late does not have the last word. Who gets the request again finds it in the state, and acts again.

If the process dies after the append, the state is durable and the request comes again within the ack wait; until then
a saga type goes on at coordinators that were not told, and a participant is delivered to. If it dies in the middle of a
walk, the walk begins anew, which changes nothing for sagas that were looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.errors import Ambiguous, Conflict
from antiphon.contracts.identity import COORDINATOR, SAGA_TYPE, SagaKey
from antiphon.contracts.payloads import PAUSE_STATE_TYPE, PauseState
from antiphon.contracts.stored import Outcome, StoredMessage
from antiphon.contracts.subjects import state_subject
from antiphon.contracts.topology import participant_consumers_of
from antiphon.link.faults import say
from antiphon.link.killpoints import reached

from ..decision.facts import Operated
from ..decision.pause import decided, is_decided, read_pause_state
from .ports import Delivered
from .resume_scan import ResumeScan

if TYPE_CHECKING:
    from .coordinator import Coordinator

log = structlog.get_logger()

TRIES_MAX: Final = 10
"""Conflicts in a row before the request is handed back: only other requests about the same thing write there."""

HAND_BACK_SECONDS: Final = 1.0

STRANGER_DELIVERIES_MAX: Final = 5
"""After so many deliveries a request about a saga type is rejected that none of the coordinators asked has."""


class PauseHandler:
    """One request, or a look at whether a participant's consumers are as they should be, and how far it has come."""

    def __init__(
        self, coordinator: Coordinator, key: SagaKey, delivery: Delivered | None = None, fact: Operated | None = None
    ) -> None:
        self._coordinator, self._key, self._delivery, self._fact = coordinator, key, delivery, fact
        self._tries = 0

    def begin(self) -> None:
        """Deal with the request under a guard of its own."""
        self._coordinator.store.guard.call(self, self.run)

    def failed(self, error: BaseException) -> None:
        """Have the request come again, or be parked; a look without one is taken again in any case."""
        if self._delivery is not None:
            self._coordinator.faulty(self._delivery, error)
        else:
            say("halt.faulty", error, what=str(self._key))

    def run(self) -> None:
        """Read the state."""
        self._coordinator.store.last(state_subject(self._key), self._on_state)

    def _on_state(self, stored: StoredMessage | Ambiguous | None) -> None:
        if isinstance(stored, Ambiguous):
            self._hand_back(str(stored))
            return
        halt, guard = (read_pause_state(stored), stored.sequence) if stored else (PauseState(), 0)
        if self._fact is None or is_decided(halt, self._fact.sequence):
            self._act(halt, guard)
        else:
            self._judge(self._fact, halt, guard)

    # --- decide -------------------------------------------------------------------------------------------------------

    def _judge(self, fact: Operated, halt: PauseState, guard: int) -> None:
        """Find out whether there is such a thing, and decide."""
        name = self._key.id
        if self._key.type == SAGA_TYPE:
            versions = self._coordinator.sagas.get(name)
            if versions is None and self._delivery is not None and self._delivery.deliveries < STRANGER_DELIVERIES_MAX:
                self._hand_back(f"no coordinator here has a saga {name!r}")
                return
            wrong = "" if versions else f"no coordinator has a saga {name!r}"
            if versions and fact.verb == "pause" and not versions.newest.is_led:
                wrong = f"nobody leads sagas of type {name!r}: pause the participants that react to each other instead"
            self._append(decided(halt, fact, wrong), guard)
            return

        def on_known(paused: bool | Ambiguous | None) -> None:
            if isinstance(paused, Ambiguous):
                self._hand_back(str(paused))
                return
            wrong = f"there is no participant {name!r}" if paused is None else ""
            self._append(decided(halt, fact, wrong), guard)

        self._coordinator.store.is_paused(*participant_consumers_of(name)[0], on_known)

    def _append(self, halt: PauseState, guard: int) -> None:
        subject = state_subject(self._key)
        time = self._coordinator.store.now()
        data = encode(Envelope(id=subject, source=COORDINATOR, type=PAUSE_STATE_TYPE, time=time, data=pack(halt)))

        def on_stored(outcome: Outcome) -> None:
            if isinstance(outcome, int):
                self._on_appended(halt, outcome)
            elif isinstance(outcome, Conflict) and self._tries < TRIES_MAX:
                self._tries += 1
                self.run()
            else:
                self._hand_back(str(outcome))

        self._coordinator.store.append(self._key, subject, data, guard, False, on_stored)

    def _on_appended(self, halt: PauseState, sequence: int) -> None:
        request = halt.requests[-1]
        log.info("halt.requested", what=str(self._key), verb=request.verb, by=request.user, rejected=request.rejected)
        # Durable from here on: whoever asked can read what became of it. The request comes again if we die.
        reached("coordinator.halt_appended")
        if request.rejected:
            self._finish()
        else:
            self._act(halt, sequence)

    # --- act ----------------------------------------------------------------------------------------------------------

    def _act(self, halt: PauseState, sequence: int) -> None:
        if self._key.type == SAGA_TYPE:
            self._tell(halt, sequence)
        else:
            self._set(participant_consumers_of(self._key.id), halt, sequence)

    def _tell(self, halt: PauseState, sequence: int) -> None:
        """Have all coordinators know. One that does not hear it looks by itself before long."""
        coordinator, name = self._coordinator, self._key.id
        coordinator.paused_types.learn(name, halt.paused, sequence)
        coordinator.store.announce(name, sequence)
        reached("coordinator.halt_told")
        if halt.paused or self._delivery is None or name not in coordinator.sagas:
            self._finish()
        else:
            ResumeScan(coordinator, name, self._delivery.in_progress, self._on_walked).next_page()

    def _on_walked(self, failed: str) -> None:
        if failed:
            self._hand_back(failed)
        else:
            self._finish()

    def _set(self, consumers: tuple[tuple[str, str], ...], halt: PauseState, sequence: int) -> None:
        """Have a participant's consumers stand still or go on, one after the other."""
        store = self._coordinator.store
        stream, consumer = consumers[0]

        def on_known(paused: bool | Ambiguous | None) -> None:
            if isinstance(paused, Ambiguous):
                self._hand_back(str(paused))
            elif paused is None or paused == bool(halt.paused):
                on_set(None)
            else:
                log.info("halt.set", consumer=consumer, paused=halt.paused)
                store.pause(stream, consumer, bool(halt.paused), on_set)

        def on_set(failed: Ambiguous | None) -> None:
            if failed is not None:
                self._hand_back(str(failed))
            elif consumers[1:]:
                self._set(consumers[1:], halt, sequence)
            else:
                store.last(state_subject(self._key), on_read_again)

        def on_read_again(stored: StoredMessage | Ambiguous | None) -> None:
            if isinstance(stored, Ambiguous):
                self._hand_back(str(stored))
            elif stored is not None and stored.sequence > sequence:
                self._set(participant_consumers_of(self._key.id), read_pause_state(stored), stored.sequence)
            else:
                self._finish()

        store.is_paused(stream, consumer, on_known)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        if self._delivery is not None:
            self._delivery.ack()

    def _hand_back(self, why: str) -> None:
        log.info("halt.handed_back", what=str(self._key), why=why)
        if self._delivery is not None:
            self._delivery.hand_back(HAND_BACK_SECONDS)

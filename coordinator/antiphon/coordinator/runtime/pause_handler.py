"""An operator's request to pause or resume a saga type or a participant, on its way to where it holds.

The order is that of all facts: read, decide, append under the guard, act, ack. The handler acts on the state and not on
the request. If the request is delivered again, it is found in the state, and the state is acted on again.

If the process dies after the append, the state is durable and the request comes again within the ack wait; until then
coordinators that were not told go on with a saga type, and a participant is delivered to. If it dies in the middle of a
scan, the scan begins anew, which changes nothing for sagas that were looked at.
"""

from __future__ import annotations

from typing import Final

import structlog

from antiphon.contracts.envelope import Envelope, encode, pack
from antiphon.contracts.errors import Ambiguous, BadIdentity, Conflict
from antiphon.contracts.identity import COORDINATOR, SAGA_TYPE, SagaKey
from antiphon.contracts.payloads import PAUSE_STATE_TYPE, PauseState
from antiphon.contracts.stored import Delivered, Outcome, StoredMessage
from antiphon.contracts.subjects import state_subject
from antiphon.contracts.topology import check_participant, participant_consumers_of
from antiphon.link.killpoints import reached

from ..decision.facts import Operated
from ..decision.pause import decided, is_decided, read_pause_state
from .consumer_pause import ConsumerPause
from .journals import Journals
from .parking import HAND_BACK_SECONDS, Parking
from .paused_types import PausedTypes, Review
from .resume_scan import ResumeScan

log = structlog.get_logger()

TRIES_MAX: Final = 10
"""Conflicts in a row before the request is handed back: only other requests about the same key write there."""

STRANGER_DELIVERIES_MAX: Final = 5
"""After so many deliveries a request about a saga type is rejected that none of the coordinators asked has."""


class PauseHandler:
    """One request, and how far it has come.

    Args:
        journals: the coordinator's.
        paused_types: learns what was decided about a saga type.
        parking: takes the request if handling it raises.
        review: decides the sagas of a resumed type again.
        key: the saga type's or the participant's.
        delivery: of the request.
        fact: the request.
    """

    __slots__ = ("_delivery", "_fact", "_journals", "_key", "_parking", "_paused_types", "_review", "_store", "_tries")

    def __init__(
        self,
        journals: Journals,
        paused_types: PausedTypes,
        parking: Parking,
        review: Review,
        key: SagaKey,
        delivery: Delivered,
        fact: Operated,
    ) -> None:
        self._journals, self._paused_types, self._parking, self._review = journals, paused_types, parking, review
        self._key, self._delivery, self._fact = key, delivery, fact
        self._store = journals.store
        self._tries = 0

    def begin(self) -> None:
        """Deal with the request under a guard of its own."""
        self._store.guard.call(self, self.run)

    def failed(self, error: BaseException) -> None:
        """Have the request delivered again, or park it."""
        self._parking.faulty(self._delivery, error)

    def run(self) -> None:
        """Read the state."""
        self._store.last(state_subject(self._key), self._on_state)

    def _on_state(self, stored: StoredMessage | Ambiguous | None) -> None:
        if isinstance(stored, Ambiguous):
            self._hand_back(str(stored))
            return
        state, guard = (read_pause_state(stored), stored.sequence) if stored else (PauseState(), 0)
        if is_decided(state, self._fact.sequence):
            self._act(state, guard)
        elif self._key.type == SAGA_TYPE:
            self._judge_type(state, guard)
        else:
            self._judge_participant(state, guard)

    # --- decide -------------------------------------------------------------------------------------------------------

    def _judge_type(self, state: PauseState, guard: int) -> None:
        """Decide about a saga type, unless another coordinator may have it."""
        name, fact = self._key.id, self._fact
        versions = self._journals.definitions.get(name)
        if versions is None and self._delivery.deliveries < STRANGER_DELIVERIES_MAX:
            self._hand_back(f"no coordinator here has a saga {name!r}")
            return
        wrong = "" if versions else f"no coordinator has a saga {name!r}"
        if versions and fact.verb == "pause" and not versions.newest.is_led:
            wrong = f"nobody leads sagas of type {name!r}: pause the participants that react to each other instead"
        self._append(decided(state, fact, wrong), guard)

    def _judge_participant(self, state: PauseState, guard: int) -> None:
        """Decide about a participant, which exists if its consumer does, and may have its name."""
        name = self._key.id
        try:
            check_participant(name)
        except BadIdentity as error:
            self._append(decided(state, self._fact, str(error)), guard)
            return

        def on_known(paused: bool | Ambiguous | None) -> None:
            if isinstance(paused, Ambiguous):
                self._hand_back(str(paused))
                return
            wrong = f"there is no participant {name!r}" if paused is None else ""
            self._append(decided(state, self._fact, wrong), guard)

        stream, consumer = participant_consumers_of(name)[0]
        self._store.is_paused(self._store.pairs.names(stream)[0], consumer, on_known)

    def _append(self, state: PauseState, guard: int) -> None:
        subject = state_subject(self._key)
        time = self._store.now()
        data = encode(Envelope(id=subject, source=COORDINATOR, type=PAUSE_STATE_TYPE, time=time, data=pack(state)))

        def on_stored(outcome: Outcome) -> None:
            if isinstance(outcome, int):
                self._on_appended(state, outcome)
            elif isinstance(outcome, Conflict) and self._tries < TRIES_MAX:
                self._tries += 1
                self.run()
            else:
                self._hand_back(str(outcome))

        self._store.append(self._key, subject, data, guard, False, on_stored)

    def _on_appended(self, state: PauseState, sequence: int) -> None:
        request = state.requests[-1]
        log.info("halt.requested", what=str(self._key), verb=request.verb, by=request.user, rejected=request.rejected)
        # Durable from here on: the verdict can be read. If this process dies, the request is delivered again.
        reached("coordinator.halt_appended")
        if request.rejected:
            self._delivery.ack()
        else:
            self._act(state, sequence)

    # --- act ----------------------------------------------------------------------------------------------------------

    def _act(self, state: PauseState, sequence: int) -> None:
        if self._key.type == SAGA_TYPE:
            self._tell(state, sequence)
        else:
            ConsumerPause(self._store, self._key, self._on_done).set(state, sequence)

    def _tell(self, state: PauseState, sequence: int) -> None:
        """Tell all coordinators. One that does not hear the announcement reads the state before long."""
        name = self._key.id
        self._paused_types.learn(name, state.paused, sequence)
        self._store.announce(name, sequence)
        reached("coordinator.halt_told")
        if state.paused or name not in self._journals.definitions:
            self._delivery.ack()
        else:
            ResumeScan(self._store, self._review, name, self._delivery.in_progress, self._on_done).next_page()

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _on_done(self, failed: str) -> None:
        if failed:
            self._hand_back(failed)
        else:
            self._delivery.ack()

    def _hand_back(self, why: str) -> None:
        log.info("halt.handed_back", what=str(self._key), why=why)
        self._delivery.hand_back(HAND_BACK_SECONDS)

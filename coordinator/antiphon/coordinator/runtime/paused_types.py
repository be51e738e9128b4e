"""The paused saga types, as far as one coordinator knows, and the sagas that it held back meanwhile.

It learns of a pause from an announcement, and by looking: before it begins, after the connection was away, and now and
then, so that an announcement that was lost is made up for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.identity import PARTICIPANT, SAGA_TYPE, SagaKey
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import parse_state, state_subject
from antiphon.link.faults import say

from ..decision.pause import read_pause_state
from .consumer_pause import ConsumerPause
from .ports import Store

log = structlog.get_logger()

LOOK_SECONDS: Final = 15.0
"""How often a coordinator reads the states by itself: so long at most a lost announcement is not heeded."""

LOOK_AGAIN_SECONDS: Final = 0.5

HELD_BACK_MAX: Final = 10_000
"""How many held-back sagas a coordinator remembers. The scan that follows a resume finds the rest."""

Review = Callable[[SagaKey, Callable[[bool], None]], None]
"""Takes in the facts that a saga's journal does not name, and decides; the callback is told whether that could be
done."""


class PausedTypes:
    """The paused saga types that one coordinator knows of.

    Args:
        store: where the states are.
        review: decides a saga again that was held back.
    """

    def __init__(self, store: Store, review: Review) -> None:
        self._store, self._review = store, review
        self.paused: dict[str, str] = {}
        """Paused saga types, with the reason."""
        self._known: dict[str, int] = {}
        """Where the newest state of each type that was learned is stored."""
        self._held_back: dict[str, set[SagaKey]] = {}

    def hold_back(self, key: SagaKey) -> None:
        """Remember a saga for which nothing was sent because its type is paused.

        A resume may have been decided while that fact was under way, and the scan that follows may have passed the
        saga already: so the coordinator that held a saga back reviews it.
        """
        held = self._held_back.setdefault(key.type, set())
        if len(held) < HELD_BACK_MAX:
            held.add(key)

    def learn(self, saga_type: str, paused: str, sequence: int) -> None:
        """Take down whether a saga type is paused, unless a newer state is known."""
        if sequence < self._known.get(saga_type, 0):
            return
        self._known[saga_type] = sequence
        was = self.paused.pop(saga_type, "")
        if paused:
            self.paused[saga_type] = paused
        if was != paused:
            log.info("saga_type.changed", type=saga_type, paused=paused)
        if not paused:
            for key in sorted(self._held_back.pop(saga_type, ())):
                self._review(key, lambda is_durable: None)

    def _learn_from(self, message: StoredMessage) -> None:
        """Take a stored state down. An unreadable one is logged, and the others are still read."""
        try:
            self.learn(_name(message), read_pause_state(message).paused, message.sequence)
        except Exception as error:
            say("halt.unreadable", error, message.subject)

    # --- finding out --------------------------------------------------------------------------------------------------

    def begin(self, then: Callable[[], None]) -> None:
        """Look until the states of all saga types are known, call `then`, and keep looking."""

        def on_looked(is_known: bool) -> None:
            if is_known:
                self._keep_looking()
                then()
            else:
                self._store.later(LOOK_AGAIN_SECONDS, lambda: self.begin(then))

        self._look(on_looked)

    def look(self) -> None:
        """Look now, as after the connection was away."""
        self._look(lambda is_known: None)

    def heard(self, saga_type: str, sequence: int) -> None:
        """A coordinator has announced that a saga type was paused or resumed."""

        def on_state(stored: StoredMessage | Ambiguous | None) -> None:
            if isinstance(stored, StoredMessage) and stored.sequence >= sequence:
                self.learn(saga_type, read_pause_state(stored).paused, stored.sequence)
            else:  # a replica that lags behind, or no answer
                self._store.later(LOOK_AGAIN_SECONDS, self.look)

        if sequence > self._known.get(saga_type, 0):
            self._store.last(state_subject(SagaKey.of(SAGA_TYPE, saga_type)), on_state)

    def _keep_looking(self) -> None:
        def look_again() -> None:
            self._keep_looking()  # first: whatever comes of this look, another one follows
            self.look()

        self._store.later(LOOK_SECONDS, look_again)

    def _look(self, then: Callable[[bool], None]) -> None:
        def on_types(found: list[StoredMessage] | Ambiguous) -> None:
            if isinstance(found, Ambiguous):
                then(False)
                return
            for message in found:
                self._learn_from(message)
            then(True)

        self._store.states(SAGA_TYPE, on_types)
        self._store.states(PARTICIPANT, self._on_participants)

    def _on_participants(self, found: list[StoredMessage] | Ambiguous) -> None:
        if isinstance(found, list):
            for message in found:
                key = SagaKey.of(PARTICIPANT, _name(message))
                ConsumerPause(self._store, key, partial(_say_if_not_set, key)).begin()


def _name(message: StoredMessage) -> str:
    """The saga type or participant whose state this is."""
    return parse_state(message.subject).id


def _say_if_not_set(key: SagaKey, failed: str) -> None:
    if failed:
        log.info("halt.handed_back", what=str(key), why=failed)

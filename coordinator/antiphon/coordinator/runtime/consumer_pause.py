"""The consumers of a participant, paused or resumed until they are as its stored state says.

After all are set the state is read once more, so that of two coordinators with opposite requests the late one does not
have the last word.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.payloads import PauseState
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import state_subject
from antiphon.contracts.topology import participant_consumers_of
from antiphon.link.faults import say

from ..decision.pause import read_pause_state
from .ports import Store

log = structlog.get_logger()


class ConsumerPause:
    """One comparison of a participant's consumers with its state.

    Args:
        store: where the state is, and the consumers.
        key: the participant's.
        then: called once, with the reason why the consumers could not be set, or an empty text; not after an error.
    """

    __slots__ = ("_key", "_store", "_then")

    def __init__(self, store: Store, key: SagaKey, then: Callable[[str], None]) -> None:
        self._store, self._key, self._then = store, key, then

    def begin(self) -> None:
        """Read the state and set the consumers, under a guard of its own."""
        self._store.guard.call(self, self._read)

    def failed(self, error: BaseException) -> None:
        """Log the error: another look follows in any case."""
        say("halt.faulty", error, what=str(self._key))

    def _read(self) -> None:
        def on_state(stored: StoredMessage | Ambiguous | None) -> None:
            if isinstance(stored, Ambiguous):
                self._then(str(stored))
            else:
                self.set(*((read_pause_state(stored), stored.sequence) if stored else (PauseState(), 0)))

        self._store.last(state_subject(self._key), on_state)

    def set(self, state: PauseState, sequence: int) -> None:
        """Set all consumers by a state that is stored at `sequence`."""
        consumers = participant_consumers_of(self._key.id)
        names = self._store.pairs.names
        self._set(tuple((name, each) for stream, each in consumers for name in names(stream)), state, sequence)

    def _set(self, consumers: tuple[tuple[str, str], ...], state: PauseState, sequence: int) -> None:
        """Pause or resume consumers, one after the other."""
        stream, consumer = consumers[0]

        def on_known(paused: bool | Ambiguous | None) -> None:
            if isinstance(paused, Ambiguous):
                self._then(str(paused))
            elif paused is None or paused == bool(state.paused):
                on_set(None)
            else:
                log.info("halt.set", consumer=consumer, paused=state.paused)
                self._store.pause(stream, consumer, bool(state.paused), on_set)

        def on_set(failed: Ambiguous | None) -> None:
            if failed is not None:
                self._then(str(failed))
            elif consumers[1:]:
                self._set(consumers[1:], state, sequence)
            else:
                self._store.last(state_subject(self._key), on_read_again)

        def on_read_again(stored: StoredMessage | Ambiguous | None) -> None:
            if isinstance(stored, Ambiguous):
                self._then(str(stored))
            elif stored is not None and stored.sequence > sequence:
                self.set(read_pause_state(stored), stored.sequence)
            else:
                self._then("")

        self._store.is_paused(stream, consumer, on_known)

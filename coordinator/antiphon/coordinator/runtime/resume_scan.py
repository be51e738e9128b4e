"""The scan after a resume: every open saga of the type is reviewed, since it may have waited for the resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from antiphon.contracts.errors import Ambiguous, Unusable
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.subjects import parse_fact
from antiphon.link.killpoints import reached

from .paused_types import Review
from .ports import Store

log = structlog.get_logger()

TRIES_MAX: Final = 3
"""How often a saga is looked at before it is left to the sweeper: others may be busy with it."""

TRY_AGAIN_SECONDS: Final = 0.5


class ResumeScan:
    """The starts of one saga type, read a page at a time, so that any number of sagas may have waited.

    Args:
        store: where the starts are.
        review: decides a saga again.
        saga_type: the resumed one.
        keep: called at each page, to keep the request that caused the scan from being delivered again meanwhile.
        then: called once, with the reason why the scan could not be finished, or an empty text.
    """

    __slots__ = ("_after", "_keep", "_left", "_opened", "_review", "_store", "_streams", "_then", "_type")

    def __init__(
        self,
        store: Store,
        review: Review,
        saga_type: str,
        keep: Callable[[], None],
        then: Callable[[str], None],
    ) -> None:
        self._store, self._review = store, review
        self._type, self._keep, self._then = saga_type, keep, then
        self._streams = list(store.pairs.events)
        self._after = 0
        self._left = 0
        self._opened = 0

    def next_page(self) -> None:
        """Read the next starts."""
        self._keep()
        self._store.starts(self._streams[0], self._type, self._after, self._on_page)

    def _on_page(self, page: list[StoredMessage] | Ambiguous) -> None:
        if isinstance(page, Ambiguous):
            self._then(str(page))
        elif not page and self._streams[1:]:
            del self._streams[0]
            self._after = 0
            self.next_page()
        elif not page:
            log.info("walk.done", type=self._type, open=self._opened)
            self._then("")
        else:
            self._after = page[-1].sequence
            keys = {key for message in page if (key := _key(message)) is not None}
            self._store.ended(sorted(keys), lambda ended: self._on_ended(keys, ended))

    def _on_ended(self, keys: set[SagaKey], ended: set[SagaKey] | Ambiguous) -> None:
        if isinstance(ended, Ambiguous):
            self._then(str(ended))
            return
        open_ones = sorted(keys - ended)
        self._opened += len(open_ones)
        self._left = len(open_ones)
        for key in open_ones:
            self._look(key, TRIES_MAX)
        if not open_ones:
            self._page_done()

    def _look(self, key: SagaKey, tries: int) -> None:
        def on_reviewed(is_durable: bool) -> None:
            if is_durable or tries == 1:
                self._left -= 1
                if self._left == 0:
                    self._page_done()
            else:
                self._store.later(TRY_AGAIN_SECONDS, lambda: self._look(key, tries - 1))

        self._review(key, on_reviewed)

    def _page_done(self) -> None:
        reached("coordinator.halt_walking")
        self.next_page()


def _key(message: StoredMessage) -> SagaKey | None:
    try:
        return parse_fact(message.subject).saga
    except Unusable:
        return None  # forged, and parked when it was delivered

"""The journals that one coordinator reads and appends to: the store, its definitions, and the histories it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import structlog

from antiphon.contracts.errors import AntiphonError
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.stored import NotRead, SagaPages, StoredMessage
from antiphon.contracts.subjects import in_saga, of_saga
from antiphon.tracing.telemetry.counts import Counts

from ..decision.author import Author
from ..decision.entries import Draft
from ..decision.fold import Unfoldable
from ..decision.history import History
from ..decision.reads import awaited_subjects, expected_subjects
from ..decision.replay import OtherDefinition, Replayed, replay
from ..definition.definition import Definition
from ..definition.versions import Versions, by_type
from .admission import Admission
from .cache import Cache
from .ports import Store

log = structlog.get_logger()


class Journals:
    """What the handlers of a coordinator share.

    Args:
        store: the two streams.
        definitions: of the sagas it has.
        counts: where sagas and conflicts are counted.
        author: makes an author for each plan.
        sampling_ratio: the share of sagas whose traces are sampled, of those that nobody has sent a command for yet.
        admission: which sagas may begin; all when left out.
    """

    __slots__ = (
        "_expected",
        "_lacking",
        "admission",
        "author",
        "cache",
        "counts",
        "definitions",
        "sampling_ratio",
        "store",
    )

    def __init__(
        self,
        store: Store,
        definitions: Iterable[Definition],
        counts: Counts,
        author: Callable[[], Author] = Author,
        sampling_ratio: float = 1.0,
        admission: Admission | None = None,
    ) -> None:
        self.admission = admission or Admission(store, {})
        self.store, self.counts, self.author, self.sampling_ratio = store, counts, author, sampling_ratio
        self.definitions = by_type(definitions)
        """The versions of each saga type."""
        self.cache = Cache(store.pairs)
        self._lacking: set[str] = set()
        self._expected = {name: _expected_in(name, versions) for name, versions in self.definitions.items()}
        """Where the facts of each saga type are expected: the ends of subjects."""

    def now_ns(self) -> int:
        """The time by this process's clock."""
        return round(self.store.now().timestamp() * 1e9)

    def read(self, key: SagaKey, versions: Versions, then: Callable[[Replayed | Exception], None]) -> None:
        """Read and fold a saga; `then` is called once, with the history or with the reason why there is none.

        Any other error that folding raises goes to what is in hand.
        """
        self.store.read(key, self._where(key), lambda pages: then(_replayed(key, versions, pages)))

    def _where(self, key: SagaKey) -> list[str]:
        return of_saga(key, self._expected[key.type])

    def look(self, key: SagaKey, versions: Versions, then: Callable[[Replayed | Exception], None]) -> None:
        """Read and fold a saga as `read` does, and whatever stands where it waits for something."""

        def take(pages: SagaPages | NotRead) -> None:
            result = _replayed(key, versions, pages)
            if isinstance(pages, SagaPages) and isinstance(result, Replayed) and _is_waiting(result.history):
                self.store.facts(awaited_subjects(result.history), partial(take_awaited, pages))
            else:
                then(result)

        def take_awaited(pages: SagaPages, found: list[StoredMessage] | NotRead) -> None:
            then(_replayed(key, versions, _with(pages, found) if isinstance(found, list) else found))

        self.store.read(key, self._where(key), take)

    def say_if_lacking(self, key: SagaKey, error: Exception) -> None:
        """Log once for each definition that sagas here need and this coordinator does not have."""
        if isinstance(error, OtherDefinition) and error.label not in self._lacking:
            self._lacking.add(error.label)
            log.warning("coordinator.lacks_definition", definition=error.label, saga=str(key), remedy=str(error))

    def count(self, history: History, entry: Draft) -> None:
        """Count a saga whose first or last entry was stored just now."""
        saga_type = history.key.type
        if history.entries == 1:
            self.counts.add("sagas_started", saga_type)
        if history.end is not None:
            outcome = history.end.outcome
            self.counts.add("sagas_ended", saga_type, outcome)
            self.counts.took("saga_seconds", (entry.at_ns - history.started_ns) / 1e9, saga_type, outcome)


def _expected_in(saga_type: str, versions: Versions) -> list[str]:
    return [in_saga(subject) for subject in expected_subjects(SagaKey.of(saga_type, "any"), versions)]


def _replayed(key: SagaKey, versions: Versions, pages: SagaPages | NotRead) -> Replayed | Exception:
    """What was read, folded, or the reason why it cannot be."""
    if not isinstance(pages, SagaPages):
        return pages
    try:
        return replay(key, versions, pages)
    except (AntiphonError, Unfoldable) as error:
        return error


def _is_waiting(history: History) -> bool:
    return history.end is None and history.definition.is_led


def _with(pages: SagaPages, found: list[StoredMessage]) -> SagaPages:
    """The same journal with further events, in stream order."""
    events = {message.sequence: message for message in (*pages.events, *found)}
    return SagaPages(pages.entries, [events[sequence] for sequence in sorted(events)])

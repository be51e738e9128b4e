"""A storm in whose middle the streams are backed up, and after which they are restored beside the rows of the
participant. What was done after the backup has happened, and the streams have lost it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from antiphon.contracts import SagaKey
from antiphon.contracts.stored import Delivered, StoredMessage
from antiphon.contracts.subjects import STARTS_FILTER, parse_fact
from antiphon.contracts.topology import EVENTS, SAGA, Consumer, participant_consumers
from antiphon.coordinator.decision.overtaken import Done, overtaken
from antiphon.coordinator.runtime.memory import MemoryPlatform
from tests.simulation.sagas import DEADLINE, SECOND, SHOP, Shape
from tests.simulation.storm import END_SECONDS, Storm

Cut = Literal["together", "drained"]
"""together: both streams at one moment, as copied files of a server that was stopped, and whatever coordinators had in
hand. drained: coordinators are stopped, then SAGA is backed up, and some seconds later EVENTS."""

SECONDS_MAX: Final = 60
"""The latest moment of the backup, and the longest time between it and the restoring."""
BETWEEN_SECONDS: Final = 3.0
MARGIN_NS: Final = DEADLINE.total_seconds() * SECOND / 2


@dataclass(frozen=True)
class Backup:
    """One stream as it was at one moment, with what its consumers had acked, and the timers."""

    messages: tuple[StoredMessage, ...]
    last: int
    acked: dict[str, frozenset[int]]
    timers: dict[SagaKey, tuple[int, bytes]]


class BackedUpPlatform(MemoryPlatform):
    """A platform that is backed up, or begins with backups.

    Args:
        backups: by stream.
        now_ns: the time at which they are restored.
    """

    def __init__(self, backups: dict[str, Backup] | None = None, now_ns: int = 0) -> None:
        super().__init__()
        self._backups = backups or {}
        self.now_ns = max(now_ns, self.now_ns)
        for stream, backup in self._backups.items():
            self.streams[stream] = list(backup.messages)
            self._sequences[stream] = backup.last
            for key, (due_ns, body) in backup.timers.items():
                self.schedule(key, due_ns, body)

    def back_up(self, stream: str) -> Backup:
        """What a stream holds now."""
        messages = tuple(self.streams[stream])
        acked = {
            name: frozenset(each.sequence for each in messages if each.sequence not in found.pending)
            for name, found in self._consumers.items()
            if found.consumer.stream == stream
        }
        return Backup(messages, self._sequences[stream], acked, dict(self.schedules) if stream == SAGA else {})

    def consume(self, consumer: Consumer, handle: Callable[[Delivered], None]) -> None:
        is_new = consumer.name not in self._consumers
        super().consume(consumer, handle)
        backup = self._backups.get(consumer.stream)
        for sequence in backup.acked.get(consumer.name, ()) if backup and is_new else ():
            self._consumers[consumer.name].acked(sequence)


class RestoredStorm(Storm):
    """A storm over a platform that is restored in its middle.

    Args:
        cut: how the streams are backed up.
        repeats: whether clients say once more what they have said since the backup.
    """

    def __init__(self, shape: Shape, seed: int, cut: Cut, *, repeats: bool) -> None:
        self._said = list[tuple[int, Callable[[], None]]]()
        self._cut, self._repeats = cut, repeats
        self.named = dict[SagaKey, str]()
        """The sagas that could go another way than what was done, and why; and their parents."""
        self.unknown = set[SagaKey]()
        """Sagas with rows of which the restored streams know nothing."""
        super().__init__(shape, seed)

    def make_platform(self) -> BackedUpPlatform:
        return BackedUpPlatform()

    def later(self, delay_ns: int, call: Callable[[], None]) -> None:
        self._said.append((self.platform.now_ns + delay_ns, call))
        super().later(delay_ns, call)

    def run(self) -> None:
        self._storm(self.chance.randrange(1, SECONDS_MAX))
        backups = self._back_up()
        self._storm(self.chance.randrange(1, SECONDS_MAX))
        self._restore(backups)
        self._storm(5)
        self.calm_down()
        self.platform.run(END_SECONDS)

    def _storm(self, seconds: int) -> None:
        for _ in range(seconds):
            self.platform.run(1.0)
            self._replace_the_dead()

    def _back_up(self) -> dict[str, Backup]:
        platform = self.platform
        assert isinstance(platform, BackedUpPlatform)
        if self._cut == "together":
            return {stream: platform.back_up(stream) for stream in (SAGA, EVENTS)}
        self._end_coordinators()
        saga = platform.back_up(SAGA)
        platform.run(BETWEEN_SECONDS)
        return {SAGA: saga, EVENTS: platform.back_up(EVENTS)}

    def _restore(self, backups: dict[str, Backup]) -> None:
        self._end_coordinators()
        now_ns = self.platform.now_ns
        self.platform = BackedUpPlatform(backups, now_ns)
        for due_ns, call in self._said:
            if due_ns > now_ns or self._repeats:
                self.platform.later_ns(due_ns - now_ns, call)
        self._compare()
        for consumer in participant_consumers(SHOP):
            self.platform.consume(consumer, self.handle)
        self.stores = [self._join() for _ in self.stores]

    def _end_coordinators(self) -> None:
        for store in self.stores:
            store.is_dead = True

    def _compare(self) -> None:
        """Before anything runs again, find the sagas that could go another way than what was done."""
        started = {parse_fact(each.subject).saga for each in self.platform.read(EVENTS, [STARTS_FILTER])}
        self.unknown = {saga for saga, _ in self.rows} - started
        for key in started:
            found = self.read(key)
            rows = {step: Done(row.state, row.attempt) for (saga, step), row in self.rows.items() if saga == key}
            if why := overtaken(found, rows, self.platform.now_ns, round(MARGIN_NS)):
                self.named[key] = why
                if parent := found.history.parent:
                    self.named[SagaKey.of(parent.type, parent.id)] = f"its child {key}: {why}"

    def must_end(self, key: SagaKey) -> bool:
        """Neither one that was named before, nor one that is parked, since nobody tells it again what it waits for."""
        if key in self.named or key in self.unknown:
            return False
        return self._repeats or not self.read(key).history.parked

"""What a storm runs: sagas without an end, and what their clients do meanwhile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from antiphon.contracts.messages import Event
from antiphon.coordinator import Handle
from antiphon.coordinator.definition.choreography import AnySaga

if TYPE_CHECKING:
    from .platform import ChaosPlatform


async def wait_only(handle: Handle) -> None:
    """What a client does while its saga is under way, where nothing else is said."""


@dataclass(frozen=True)
class Planned:
    """A saga that is to be started.

    Args:
        saga: its definition.
        start: what it begins with.
        id: its id.
        meanwhile: what its client does once it is started, such as to send a signal. It is called again as long as the
            platform cannot say whether that was heard.
    """

    saga: AnySaga
    start: Event
    id: str
    meanwhile: Callable[[Handle], Awaitable[None]] = wait_only


class Load(ABC):
    """Sagas without an end. `antiphon chaos --load MODULE:CLASS` makes one of a seed: all choices are made from it."""

    @abstractmethod
    def next(self) -> Planned:
        """The saga to start next."""

    def environment(self, folder: Path) -> Mapping[str, str]:
        """Variables that the platform's processes need.

        Args:
            folder: the platform's, where more can be kept.
        """
        return {}

    async def prepare(self, chaos: ChaosPlatform) -> None:
        """Have a platform that serves be ready for so many sagas, and its books be checked afterwards: see
        `ChaosPlatform.ledger` and `ChaosPlatform.audit`. By default nothing is.

        Args:
            chaos: the platform. One that others have started (`--running`) has `databases`, `told`, `ledger` and
                `audit`, too.
        """
        return


class Payloads(Load):
    """Sagas of a team's own, which begin with given payloads, again and again. Nothing is known of their books.

    Args:
        saga: their definition.
        payloads: what they begin with, in turn.
        ids: what their ids begin with; a number follows.
    """

    def __init__(self, saga: AnySaga, payloads: Sequence[Event], ids: str) -> None:
        self._saga, self._payloads, self._ids, self._numbers = saga, payloads, ids, count(1)

    def next(self) -> Planned:
        """The next payload under an id that is made up."""
        number = next(self._numbers)
        start = self._payloads[(number - 1) % len(self._payloads)]
        return Planned(self._saga, start, f"{self._ids}-{number}")

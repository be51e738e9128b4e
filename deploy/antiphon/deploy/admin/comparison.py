"""Restored streams compared with the inboxes of participants: which sagas could go another way than what was done since
the backup, and of which the streams know nothing. Such sagas can be paused in their journals before anything runs."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Final

import msgspec

from antiphon.contracts import subjects
from antiphon.contracts.errors import PlatformError
from antiphon.contracts.identity import OPERATOR, SagaKey
from antiphon.contracts.payloads import Operation, verb_type
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.coordinator.client.store_once import message, store_once
from antiphon.coordinator.decision.accept import accept_request
from antiphon.coordinator.decision.history import KNOWS_MORE
from antiphon.coordinator.decision.overtaken import Done, overtaken
from antiphon.coordinator.decision.replay import Replayed
from antiphon.coordinator.definition.definition import Definition
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.coordinator.runtime.jetstream import JetStreamStore
from antiphon.link import Link
from antiphon.participants.engines import open_engine
from antiphon.participants.purging import require_inbox

AT_ONCE: Final = 32
"""So many sagas are read at once."""

Rows = dict[str, Done]


class Overtaken(msgspec.Struct, frozen=True):
    """A saga that could go another way than what was done, and why; `is_paused` where its journal says so by now."""

    saga: str
    why: str
    is_paused: bool = False


class Comparison(msgspec.Struct, frozen=True):
    """What came of it.

    Args:
        open: how many sagas have not ended.
        overtaken: those that could go another way.
        unknown: sagas of which inboxes have effects and the streams nothing: the steps by the saga.
        unread: sagas that could not be read, and why.
    """

    open: int
    overtaken: list[Overtaken]
    unknown: dict[str, list[str]]
    unread: dict[str, str]

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left for a person: none is lost or unread, and who could go another way is paused."""
        return not self.unknown and not self.unread and all(each.is_paused for each in self.overtaken)


class Comparing:
    """Compares streams with inboxes.

    Args:
        link: a connection with an administrator's rights.
        definitions: of the sagas that are compared.
    """

    def __init__(self, link: Link, definitions: Iterable[Definition]) -> None:
        self._link = link
        self._coordinator = Coordinator(JetStreamStore(link), definitions)
        self._definitions = self._coordinator.journals.definitions

    async def compare(self, databases: Mapping[str, str]) -> Comparison:
        """Find the sagas.

        Args:
            databases: of the participants, URLs by name.

        Raises:
            PlatformError: a database cannot be opened, or holds no inbox.
            Ambiguous: the streams cannot be read now.
        """
        for url in databases.values():
            await require_inbox(url)
        started, ended = await self._keys(EVENTS), await self._keys(SAGA)
        rows, unknown = await self._rows(databases, started, ended)
        found, unread = dict[SagaKey, Replayed](), dict[str, str]()
        for key, result in await self._read(sorted(started - ended)):
            if isinstance(result, Replayed):
                found[key] = result
            else:
                unread[str(key)] = str(result)
        named = dict[SagaKey, str]()
        for key, result in found.items():
            if why := overtaken(result, rows[key], self._coordinator.journals.now_ns()):
                named[key] = why
        for key in [*named]:
            _name_parents(key, found, named)
        named_sagas = [Overtaken(str(key), why) for key, why in sorted(named.items())]
        return Comparison(len(found) + len(unread), named_sagas, unknown, unread)

    async def pause(self, saga: Overtaken, user: str) -> Overtaken:
        """Pause a saga in its journal, as an operator asks for it, without any other coordinator.

        Raises:
            PlatformError: that could not be written.
        """
        key = SagaKey.of(*saga.saga.split("/"))
        subject = subjects.verb_subject(key, user, "pause", secrets.token_hex(8))
        reason = f"{KNOWS_MORE}: {saga.why}"[:1000]
        await store_once(self._link, subject, message(subject, OPERATOR, verb_type("pause"), Operation(reason=reason)))
        (stored,) = await self._link.read_all(EVENTS, [subject])
        fact = accept_request(subjects.parse_fact(subject), stored.data, subject, stored.sequence, stored.stored_ns)
        done = asyncio.get_running_loop().create_future()
        self._coordinator.take_in(key, self._definitions[key.type], [fact], done.set_result)
        if not await done:
            raise PlatformError(f"saga {key} could not be paused. Is the server in order? Run the same command again.")
        return msgspec.structs.replace(saga, is_paused=True)

    async def _keys(self, stream: str) -> set[SagaKey]:
        """The sagas that EVENTS has starts of, or SAGA ends."""
        filters = [subjects.starts_filter(each) for each in self._definitions]
        if stream == SAGA:
            filters = [subjects.ends_filter(each) for each in self._definitions]
        found = set[SagaKey]()
        for each in filters:
            async for stored in self._link.scan(stream, each):
                if (key := subjects.saga_in(stored.subject)) is not None:
                    found.add(key)
        return found

    async def _rows(
        self, databases: Mapping[str, str], started: set[SagaKey], ended: set[SagaKey]
    ) -> tuple[dict[SagaKey, Rows], dict[str, list[str]]]:
        """The rows of open sagas, and the steps with an effect of sagas that neither began nor ended here."""
        rows, unknown = defaultdict[SagaKey, Rows](dict), defaultdict[str, list[str]](list)
        for name, url in databases.items():
            async for key, step, done in _read_rows(url, [*self._definitions]):
                if key in started - ended:
                    rows[key][step] = done
                elif key not in ended and key not in started and done.state in ("done", "claimed", "open"):
                    unknown[str(key)].append(f"{step} of {name} is {done.state}")
        return rows, dict(unknown)

    async def _read(self, keys: list[SagaKey]) -> list[tuple[SagaKey, Replayed | Exception]]:
        places = asyncio.Semaphore(AT_ONCE)

        async def one(key: SagaKey) -> tuple[SagaKey, Replayed | Exception]:
            async with places:
                read: asyncio.Future[Replayed | Exception] = asyncio.get_running_loop().create_future()
                self._coordinator.journals.look(key, self._definitions[key.type], read.set_result)
                return key, await read

        return await asyncio.gather(*map(one, keys))


def _name_parents(key: SagaKey, found: Mapping[SagaKey, Replayed], named: dict[SagaKey, str]) -> None:
    """Whoever waits for a child goes on once that has ended, so it is named with its child."""
    parent = found[key].history.parent
    while parent is not None and (above := SagaKey.of(parent.type, parent.id)) in found:
        named.setdefault(above, f"its child {key}: {named[key]}")
        parent = found[above].history.parent


async def _read_rows(url: str, saga_types: list[str]) -> AsyncGenerator[tuple[SagaKey, str, Done]]:
    """What an inbox says of the steps of some types of sagas."""
    from sqlalchemy import select

    from antiphon.participants.tables import inbox

    columns = (inbox.c.saga_type, inbox.c.saga_id, inbox.c.step, inbox.c.state, inbox.c.attempt)
    engine = open_engine(url, writes=False)
    try:
        async with engine.connect() as connection:
            rows = await connection.stream(select(*columns).where(inbox.c.saga_type.in_(saga_types)))
            async for saga_type, saga_id, step, state, attempt in rows:
                yield SagaKey.of(saga_type, saga_id), step, Done(state, attempt)
    finally:
        await engine.dispose()

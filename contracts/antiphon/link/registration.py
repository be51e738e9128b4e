"""A process stores its capabilities in the bucket of registrations, again and again for as long as it runs."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import platform
import secrets
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import structlog

from antiphon.contracts.errors import AntiphonError
from antiphon.contracts.headers import FORGET_HEADER
from antiphon.contracts.registration import WIRE, Capabilities, Registration, printable, token
from antiphon.contracts.topology import REGISTRATION_SECONDS

from .connection import Link
from .fitness import Fitness

log = structlog.get_logger()

RENEW_SECONDS: Final = REGISTRATION_SECONDS / 3
"""Two renewals may be lost before a process is taken to be gone."""

VERSION_VARIABLE: Final = "ANTIPHON_PROGRAM_VERSION"
"""The environment variable in which a team says which version of its program runs."""

HOST_CHARS: Final = 40

REMEDY: Final = (
    "sagas go on, and `antiphon flow --server` does not know of this process. Create the bucket, as administrator: "
    "antiphon setup. With accounts, make them anew: antiphon rights."
)


@asynccontextmanager
async def registered(
    link: Link,
    capabilities: Capabilities,
    renew_seconds: float = RENEW_SECONDS,
    instance: str = "",
    fitness: Fitness | None = None,
    *,
    archives: bool = False,
    database: int = 0,
) -> AsyncGenerator[None]:
    """Keep this process registered for as long as the block lasts and it is ready. A registration that fails is a line
    in the log.

    Args:
        link: a connection that may write below the name's key.
        capabilities: what the process does.
        renew_seconds: how often the registration is stored.
        instance: the name of this process; made up when left out.
        fitness: says whether it is ready; always, when left out.
        archives: whether it writes old sagas to an archive before it purges them.
        database: the number of a participant's database.
    """
    saying = _Saying(link, registration_of(capabilities, instance, archives=archives, database=database))
    renewing = asyncio.ensure_future(saying.again_and_again(renew_seconds, fitness))
    try:
        yield
    finally:
        renewing.cancel()
        saying.take_back()


def new_instance() -> str:
    """A name for this process that no other process has."""
    return f"{token(socket.gethostname())[:HOST_CHARS]}-{secrets.token_hex(6)}"


def registration_of(
    capabilities: Capabilities, instance: str = "", *, archives: bool = False, database: int = 0
) -> Registration:
    """The registration of this process, under an instance name that no other process has."""
    return Registration(
        name=capabilities.name,
        commands=capabilities.commands,
        compensations=capabilities.compensations,
        reactions=capabilities.reactions,
        sagas=capabilities.sagas,
        instance=instance or new_instance(),
        started=datetime.now(UTC),
        version=printable(os.environ.get(VERSION_VARIABLE, "")),
        wire=WIRE,
        archives=archives,
        database=database,
        library=f"antiphon {importlib.metadata.version('antiphon')}, Python {platform.python_version()}",
    )


class _Saying:
    """A registration that is stored again and again; the first failure in a row is logged."""

    def __init__(self, link: Link, registration: Registration) -> None:
        self._link, self._subject, self._data = link, registration.subject, registration.encode()
        self._is_failing = False
        link.on_refused[self._subject] = self._failed

    async def again_and_again(self, renew_seconds: float, fitness: Fitness | None) -> None:
        """Store it, and store it again before it expires; take it back while the process is not ready."""
        turned = fitness.turned if fitness is not None else asyncio.Event()
        while True:
            turned.clear()
            if fitness is None or fitness.is_ready:
                await self._store()
            else:
                self.take_back()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(renew_seconds):
                    await turned.wait()

    async def _store(self) -> None:
        try:
            await self._link.store(self._subject, self._data)
            self._is_failing = False
        except AntiphonError as error:
            self._failed(error)

    def take_back(self) -> None:
        """Say that this process is there no more; should that be lost, it expires."""
        if not self._link.failure.done():
            self._link.send(self._subject, headers=FORGET_HEADER)

    def _failed(self, error: AntiphonError) -> None:
        if not self._is_failing:
            log.warning("registration.failed", subject=self._subject, reason=str(error), remedy=REMEDY)
        self._is_failing = True

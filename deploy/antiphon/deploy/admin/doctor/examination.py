"""All checks, one after the other. None depends on another: what one cannot see is said, and the next one looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Final

from antiphon.contracts.errors import AntiphonError, RightsMissing
from antiphon.contracts.topology import EVENTS, PARKED, SAGA
from antiphon.link import Link

from ..rights import API
from . import access, clients, clocks, databases, monitor, people, reading, roles, streams
from .findings import Deployment, Finding
from .roles import refused_of

CHECK_SECONDS: Final = 60.0
"""How long one check may take."""

Check = Callable[[Deployment], Awaitable[list[Finding]]]
CHECKS: Final[dict[str, Check]] = {
    "server": streams.server,
    "encryption": access.encryption,
    "certificates": access.certificates,
    "passwords": access.door,
    "rights": roles.rights,
    "settings": streams.settings,
    "copies": streams.copies,
    "room": streams.room,
    "clocks": clocks.clocks,
    "servers": monitor.servers,
    "work": streams.work,
    "clients": clients.clients,
    "readmodels": reading.readmodels,
    "parked": people.parked,
    "paused": people.paused,
    "databases": databases.databases,
}
FOR_ANYBODY: Final = frozenset(("server", "encryption", "certificates", "passwords", "databases"))
"""Checks that ask the server nothing that needs a right."""
FOR_OPERATORS: Final = frozenset(("parked", "paused"))
"""Checks that read journals, as operators and administrators may."""
ASKED: Final = ("STREAM.NAMES", "STREAM.INFO.{}", "CONSUMER.LIST.{}")
"""What the others ask the server for, of SAGA."""
USER: Final = "user"
"""The check of who looks."""
REMEDY: Final = "set NATS_USER and NATS_PASSWORD, or NATS_CREDS, to the administrator's, who can"


async def examine(deployment: Deployment, more: Mapping[str, Check] | None = None) -> AsyncGenerator[Finding]:
    """Look at everything that this user may look at, and tell each finding as soon as it is there.

    Args:
        deployment: what is looked at.
        more: checks beside those that are made here, which ask the server nothing.
    """
    left_out = await _left_out(deployment.link)
    if left_out:
        who = deployment.credentials.login or "this user"
        said = f"{who} may not look at everything; not looked at: {', '.join(left_out)}"
        yield Finding(USER, "unknown", said, REMEDY)
    for name, check in {**CHECKS, **(more or {})}.items():
        if name in left_out:
            continue
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                found = await check(deployment)
        except TimeoutError:
            found = [_unknown(name, f"no answer within {CHECK_SECONDS:g} s")]
        except RightsMissing as error:
            found = [_unknown(name, str(error), REMEDY)]
        except AntiphonError as error:
            found = [_unknown(name, str(error))]
        except Exception as error:  # an answer of a shape that this release does not know; the other checks go on
            found = [_unknown(name, f"what it was told cannot be read ({error!r:.200})")]
        for each in found:
            yield each


async def _left_out(link: Link) -> list[str]:
    """The checks that this user cannot make."""
    if await is_administrator(link):
        return []
    read = [f"{API}.DIRECT.GET.{name}" for name in (*link.pairs.names(SAGA), *link.pairs.names(EVENTS), PARKED)]
    free = FOR_ANYBODY if await refused_of(link, read) else FOR_ANYBODY | FOR_OPERATORS
    return [name for name in CHECKS if name not in free]


async def is_administrator(link: Link) -> bool:
    """Whether this user may ask the server what only administrators may ask."""
    asked = [f"{API}.{each.format(link.pairs.names(SAGA)[0])}" for each in ASKED]
    return not await refused_of(link, asked)


def _unknown(check: str, why: str, remedy: str = "") -> Finding:
    return Finding(check, "unknown", f"could not be looked at: {why}", remedy)

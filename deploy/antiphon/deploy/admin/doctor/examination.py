"""All checks, one after the other. None depends on another: what one cannot see is said, and the next one looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Final

from antiphon.contracts.errors import AntiphonError, RightsMissing

from . import access, clients, clocks, databases, monitor, people, reading, roles, streams
from .findings import Deployment, Finding

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


async def examine(deployment: Deployment, more: Mapping[str, Check] | None = None) -> AsyncGenerator[Finding]:
    """Look at everything, and tell each finding as soon as it is there.

    Args:
        deployment: what is looked at.
        more: checks beside those that are made here.
    """
    for name, check in {**CHECKS, **(more or {})}.items():
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                found = await check(deployment)
        except TimeoutError:
            found = [_unknown(name, f"no answer within {CHECK_SECONDS:g} s")]
        except RightsMissing as error:
            found = [_unknown(name, str(error), "set NATS_USER and NATS_PASSWORD to the administrator's")]
        except AntiphonError as error:
            found = [_unknown(name, str(error))]
        except Exception as error:  # an answer of a shape that this release does not know; the other checks go on
            found = [_unknown(name, f"what it was told cannot be read ({error!r:.200})")]
        for each in found:
            yield each


def _unknown(check: str, why: str, remedy: str = "") -> Finding:
    return Finding(check, "unknown", f"could not be looked at: {why}", remedy)

"""How far read models have read, as the bucket of read models holds it; and one of them forgotten."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

from antiphon.contracts import subjects
from antiphon.contracts.errors import BadIdentity, PlatformError, Unusable
from antiphon.contracts.readmodel_places import Place, Reader, read_place
from antiphon.contracts.stored import NobodyReads, StoredMessage
from antiphon.contracts.topology import READMODELS

from .connection import Link
from .setup import api

RENEW_SECONDS: Final = 30.0
"""How often a read model that runs says where it is, also where nothing has changed."""
SILENT_SECONDS: Final = 3 * RENEW_SECONDS
"""From here on it is taken to run no more."""


async def readers(link: Link) -> list[Reader]:
    """The read models that there are, by name.

    Raises:
        NobodyReads: there is no bucket.
        Ambiguous: no answer.
    """
    stored = await link.read_all(READMODELS.name, [subjects.READMODELS_FILTER])
    found = [_reader(message) for message in stored if message.data]  # a key that was deleted is stored as nothing
    return sorted((each for each in found if each is not None), key=lambda reader: reader.name)


def _reader(message: StoredMessage) -> Reader | None:
    try:
        name, place = read_place(message.subject, message.data)
    except Unusable as error:
        with suppress(Unusable, BadIdentity):
            return Reader(subjects.parse_readmodel(message.subject), Place(), message.stored_ns, error.reason)
        return None
    return Reader(name, place, message.stored_ns)


def silent_seconds(reader: Reader) -> float:
    """For how long a read model has said nothing."""
    return max(0.0, time.time() - reader.heard_ns / 1e9)


async def forget_reader(link: Link, name: str) -> None:
    """Have nobody wait for a read model any more.

    Args:
        link: a connection with an administrator's rights.
        name: the read model's.

    Raises:
        PlatformError: there is none of that name, it runs, or the server refused.
    """
    await require_gone(link, name)
    answer = await api(link, f"STREAM.PURGE.{READMODELS.name}", {"filter": subjects.readmodel_subject(name)})
    if error := answer.get("error"):
        raise PlatformError(f"the server refused to forget read model {name}: {error.get('description')}.")


async def require_gone(link: Link, name: str) -> None:
    """Check that a read model can be forgotten.

    Args:
        link: a connection with an administrator's rights.
        name: the read model's.

    Raises:
        PlatformError: there is none of that name, or it runs.
    """
    try:
        known = {reader.name: reader for reader in await readers(link)}
    except NobodyReads:  # there is no bucket yet
        known = {}
    if name not in known:
        names = ", ".join(known) or "none"
        raise PlatformError(f"no read model is called {name!r}; known are: {names}.")
    if (seconds := silent_seconds(known[name])) < SILENT_SECONDS:
        raise PlatformError(
            f"read model {name} runs: it told {seconds:.0f} s ago how far it has read. Forgotten now, it would be "
            f"known again at once. End it first; one that has ended is taken to run for {SILENT_SECONDS:.0f} s more."
        )

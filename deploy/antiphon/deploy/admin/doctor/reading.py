"""The read models: whether they run and keep up, since old sagas stay until all of them have read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from antiphon.contracts import clock
from antiphon.contracts.counting import counted
from antiphon.contracts.readmodel_places import Reader
from antiphon.contracts.stored import NobodyReads
from antiphon.contracts.topology import SAGA
from antiphon.link.readmodel_places import SILENT_SECONDS, readers, silent_seconds
from antiphon.link.setup import api

from .findings import Deployment, Finding

BEHIND: Final = 10_000
"""How many messages of SAGA that a read model has not read are pointed out: a second's worth at full load."""


async def readmodels(found: Deployment) -> list[Finding]:
    """Whether a read model holds up the purge of old sagas."""
    try:
        known = await readers(found.link)
    except NobodyReads:  # there is no bucket, which is said where settings are looked at
        return []
    infos = [await api(found.link, f"STREAM.INFO.{stream}") for stream in found.link.pairs.saga]
    last = [int(info.get("state", {}).get("last_seq", 0)) for info in infos]
    return [judged(reader, last, silent_seconds(reader)) for reader in known]


def judged(reader: Reader, last: Sequence[int], silent: float) -> Finding:
    """What is to be said of a read model.

    Args:
        reader: the read model.
        last: the last sequence of SAGA, of each pair.
        silent: for how many seconds it has said nothing.
    """
    name, place = reader.name, reader.place
    unread = sum(max(0, each - place.of_pair(pair)[0]) for pair, each in enumerate(last))
    stays = "old sagas that it has not read are not purged"
    if reader.fault:
        said = f"what read model {name} says of its place cannot be read ({reader.fault}), so no old saga is purged"
        return Finding("readmodels", "fault", said, f"as administrator: antiphon setup --forget-readmodel {name}")
    if silent >= SILENT_SECONDS:
        since = clock.rfc3339(reader.heard_ns)[:19] + "Z"
        rest = counted(unread, f"message of {SAGA} is", f"messages of {SAGA} are")
        said = f"read model {name} has said nothing since {since}; {rest} unread, and {stays}"
        remedy = f"start it: antiphon readmodel; where it is gone for good: antiphon setup --forget-readmodel {name}"
        return Finding("readmodels", "warning", said, remedy)
    if unread > BEHIND:
        said = f"read model {name} is behind by {counted(unread, 'message')} of {SAGA}, and {stays}"
        return Finding("readmodels", "warning", said, "wait, and look at its log and its database if that stays so")
    return Finding("readmodels", "fine", f"read model {name} runs and keeps up")

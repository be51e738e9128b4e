"""A voyage lived in memory, put into the streams of a real server: journals to look at without waiting for them."""

from __future__ import annotations

from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.link import Link
from tests.integration.tracing.voyage import Voyage


async def play_back(voyage: Voyage, link: Link) -> None:
    """Store all facts and journals in fresh streams, where the facts get the sequences that the journals name."""
    for number, message in enumerate(voyage.platform.streams[EVENTS], 1):
        assert await link.store(message.subject, message.data) == message.sequence == number
    for message in voyage.platform.streams[SAGA]:
        if ".c." in message.subject:
            await link.store(message.subject, message.data)

"""How many servers there are to keep copies of a stream, and the sentence where they are too few."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any, Final

import msgspec

from antiphon.contracts.errors import PlatformError

from .connection import Link

PING: Final = "$SYS.REQ.ACCOUNT.PING.CONNZ"
"""Every server answers it, for the asker's account alone: the one question of that kind for which nobody needs the
rights of a server's own administrator."""
QUIET_SECONDS: Final = 1.0
"""After this long without a further answer all have answered."""
TRIES_MAX: Final = 5
"""How often is asked where too few answered: a cluster that has just started finds its servers one by one."""


async def require_servers(link: Link, replicas: int) -> None:
    """Check that there are as many servers as copies are asked for. Nothing is changed for that.

    Args:
        link: a connection with an administrator's rights.
        replicas: copies of each stream.

    Raises:
        PlatformError: there are fewer; the sentence says how many, and what to do.
    """
    for tries_left in reversed(range(TRIES_MAX)):
        clusters = await _clusters(link, replicas)
        count = _most(clusters)
        if not clusters or count >= replicas:
            return  # who tells nothing is asked for the streams themselves
        if not tries_left or not any(clusters):  # a server that is alone stays so
            raise TooFewServers(replicas, count)


class TooFewServers(PlatformError):
    """More copies of each stream are asked for than there are servers to keep them."""

    def __init__(self, replicas: int, servers: int) -> None:
        found, otherwise = (
            ("this server is alone: it belongs to no cluster", "make it one of a cluster")
            if servers == 1
            else (f"of the cluster {servers} servers with JetStream answer", "start the missing servers")
        )
        super().__init__(
            f"nothing was changed: {replicas} copies of each stream (--replicas) need {replicas} servers in one "
            f"cluster, and {found}. Give --replicas {servers}, or {otherwise} and run the same command."
        )
        self.replicas, self.servers = replicas, servers


async def _clusters(link: Link, wanted: int) -> Counter[str]:
    """How many servers with JetStream answer, by the names of their clusters; empty for one that is alone."""
    clusters, heard = Counter[str](), asyncio.Event()

    def hear(_subject: str, _reply: str, data: bytes, _headers: bytes | None) -> None:
        with contextlib.suppress(msgspec.MsgspecError, AttributeError):
            said: dict[str, Any] = msgspec.json.decode(data).get("server", {})
            if said.get("jetstream"):
                clusters[said.get("cluster") or ""] += 1
                heard.set()

    inbox = f"{link.new_inbox()}.1"
    subscription = await link.subscribe(inbox, hear)
    try:
        link.send(PING, b'{"limit":1}', reply=inbox)
        with contextlib.suppress(TimeoutError):
            while _most(clusters) < wanted:
                heard.clear()
                async with asyncio.timeout(QUIET_SECONDS):
                    await heard.wait()
        return clusters
    finally:
        await subscription.unsubscribe()


def _most(clusters: Counter[str]) -> int:
    """How many servers the largest cluster has."""
    return max((count if name else 1 for name, count in clusters.items()), default=0)

"""What the monitoring pages of nats-server tell (`http:` in its configuration): sync interval, room, clock, health."""

from __future__ import annotations

import asyncio
import json
import time
from http.client import HTTPException
from typing import Any, Final, cast
from urllib.error import HTTPError
from urllib.request import urlopen

from antiphon.link.setup import info_of

from .clocks import judged, time_in
from .findings import Deployment, Finding

SECONDS: Final = 5.0
BYTES_MAX: Final = 1_000_000
FULL: Final = 0.8
"""The share of a server's disk above which it is pointed out."""
NANOSECONDS: Final = 1e9


async def servers(found: Deployment) -> list[Finding]:
    """What each server tells of itself."""
    if not found.monitors:
        said = "how often servers sync, and how full their disks are, only their monitoring pages tell"
        return [Finding("servers", "unknown", said, "--monitor http://HOST:8222, once for each server")]
    copies = await _copies(found)
    findings, versions = list[Finding](), dict[str, str]()
    for url in found.monitors:
        try:
            page = await asyncio.to_thread(_page, url, "varz")
            health = await asyncio.to_thread(_page, url, "healthz")
        except (OSError, ValueError, HTTPException, RecursionError) as error:
            findings.append(Finding("servers", "unknown", f"{url} could not be read ({error})"))
            continue
        name = str(page.get("server_name", url))[:80]
        versions[name] = str(page.get("version", "?"))
        findings += [*_health(name, health), *_sync(name, page, copies), *_disk(name, page), *_clock(name, page)]
    if len({*versions.values()}) > 1:
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        findings.append(Finding("servers", "warning", f"servers of several versions: {told}", "upgrade the older ones"))
    return findings


async def _copies(found: Deployment) -> int:
    info = await info_of(found.link, f"STREAM.INFO.{found.link.pairs.saga[0]}") or {}
    return int(info.get("config", {}).get("num_replicas", 1))


def _page(url: str, name: str) -> dict[str, Any]:
    """A page of a server.

    Raises:
        OSError: it could not be had.
        ValueError: it is not what a nats-server says.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no http:// or https:// URL")
    try:
        with urlopen(f"{url.rstrip('/')}/{name}", timeout=SECONDS) as answer:
            data = answer.read(BYTES_MAX)
    except HTTPError as error:  # /healthz says with a status that something is wrong, and what in its body
        with error:
            data = error.read(BYTES_MAX)
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("it is no page of a nats-server")
    return cast("dict[str, Any]", found)


def _part(page: dict[str, Any], *names: str) -> dict[str, Any]:
    """A part of a page; empty where it is not there."""
    for name in names:
        part: Any = page.get(name)
        page = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
    return page


def _health(name: str, page: dict[str, Any]) -> list[Finding]:
    if page.get("status") == "ok":
        return [Finding("servers", "fine", f"{name} is healthy")]
    why = str(page.get("error") or page.get("status") or "it says nothing")[:200]
    return [Finding("servers", "fault", f"{name} is not healthy: {why}", "look at its log")]


def _sync(name: str, page: dict[str, Any], copies: int) -> list[Finding]:
    config = _part(page, "jetstream", "config")
    if not config:
        return [Finding("servers", "fault", f"{name} runs without JetStream", "jetstream {} in its configuration")]
    if config.get("sync_always"):
        return [Finding("servers", "fine", f"{name} syncs each write before it confirms it")]
    seconds = config.get("sync_interval", 0) / NANOSECONDS
    said = f"{name} syncs every {seconds:g} s"
    if copies > 1:
        return [
            Finding(
                "servers", "fine", f"{said}; {copies} servers confirm each write, which a power cut of one survives"
            )
        ]
    return [
        Finding(
            "servers",
            "warning",
            f"{said}, and holds the only copy: a power cut may lose what it confirmed since",
            "sync_interval: always in its jetstream block, or three servers and antiphon setup --replicas 3",
        )
    ]


def _disk(name: str, page: dict[str, Any]) -> list[Finding]:
    most: int = _part(page, "jetstream", "config").get("max_storage", 0)
    used: int = _part(page, "jetstream", "stats").get("storage", 0)
    if most <= 0:
        return []
    said = f"{name} has stored {used / 1e9:.3f} of {most / 1e9:.3f} GB"
    if used < FULL * most:
        return [Finding("servers", "fine", said)]
    return [Finding("servers", "warning", said, "have old sagas purged (retention), or give it a larger disk")]


def _clock(name: str, page: dict[str, Any]) -> list[Finding]:
    theirs = time_in(page, "now")
    return [] if theirs is None else [judged(f"the clock of {name}", theirs - time.time())]

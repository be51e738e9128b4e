"""Whether clocks agree. Timers are the servers'; time stamps in journals and traces are those of who wrote them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from antiphon.link.setup import api

from .findings import Deployment, Finding

APART_SECONDS: Final = 1.0
"""From here on traces show what follows before what it follows from."""
FAR_SECONDS: Final = 30.0
"""From here on deadlines and retention are off by what matters."""


async def clocks(found: Deployment) -> list[Finding]:
    """How far the clock of the server that answers is from that of this machine."""
    before = time.time()
    answer = await api(found.link, f"STREAM.INFO.{found.link.pairs.saga[0]}")
    after = time.time()
    theirs = time_in(answer, "ts")
    if theirs is None:
        return [Finding("clocks", "unknown", "the server does not say what time it is")]
    return [judged("the server's clock", theirs - (before + after) / 2)]


def time_in(page: Mapping[str, Any], name: str) -> float | None:
    """A time that a server tells, in seconds since 1970; None where it tells none."""
    try:
        return msgspec.convert(page.get(name), datetime, strict=False).timestamp()
    except msgspec.ValidationError:
        return None


def judged(what: str, seconds: float) -> Finding:
    """What a difference means."""
    if abs(seconds) < APART_SECONDS:
        return Finding("clocks", "fine", f"{what} agrees with this machine's")
    way = "ahead of" if seconds > 0 else "behind"
    said = f"{what} is {abs(seconds):.1f} s {way} this machine's"
    return Finding("clocks", "fault" if abs(seconds) > FAR_SECONDS else "warning", said, "NTP on both machines")

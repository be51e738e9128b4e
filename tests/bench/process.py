"""One process of a system under measurement: `python -m tests.bench.process SYSTEM ROLE URL [LOAD]`.

A role says `ready` when it serves, and ends on SIGTERM. The client takes its load as JSON and says what it saw.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from .load import Load
from .profiling import Sampler
from .systems import SYSTEMS, Coroutines

PROFILE_VARIABLE: Final = "ANTIPHON_BENCH_PROFILE"
"""A file to write this process's profile to."""


async def serve(system: Coroutines, role: str, url: str) -> None:
    """Run a role until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    serving: asyncio.Future[None] = asyncio.ensure_future(system.serve(role, url, lambda: print("ready", flush=True)))
    stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    either: list[asyncio.Future[Any]] = [serving, stopped]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    serving.cancel()


async def drive(system: Coroutines, url: str, load: Load) -> None:
    """Run a load and print what was seen."""
    seen = await system.client(url, load)
    sys.stdout.buffer.write(msgspec.json.encode(seen))


def main() -> None:
    """Be what the arguments say."""
    name, role, url, *rest = sys.argv[1:]
    system = SYSTEMS[name]
    work = drive(system, url, msgspec.json.decode(rest[0], type=Load)) if rest else serve(system, role, url)
    target = os.environ.get(PROFILE_VARIABLE)
    if not target:
        uvloop.run(work)
        return
    sampler = Sampler()
    sampler.start()
    try:
        uvloop.run(work)
    finally:
        sampler.stop(Path(target))


if __name__ == "__main__":
    main()

"""`antiphon up`: the local platform in the foreground."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from antiphon.link.process import STOP_SIGNALS, told_to_stop
from antiphon.participants import Participant

from ..modules import load, load_saga
from ..render.terminal import console, parts
from .children import Say
from .platform import LocalPlatform
from .styles import Style

COLOURS: Final = ("cyan", "green", "yellow", "magenta", "blue", "red")


async def run_platform(
    sagas: Sequence[str],
    participants: Sequence[str],
    coordinators: int,
    folder: Path,
    port: int,
    jaeger: str = "",
    metrics: str = "",
    *,
    incompatible_contracts: bool = False,
) -> None:
    """Run the platform until a signal, then drain it. Without sagas and participants it is the order example's.

    Raises:
        PlatformError: a process does not start, or cannot; the sentence says why.
    """
    if not sagas and not participants:
        sagas, participants = [Style.ORCHESTRATED.saga], [*Style.ORCHESTRATED.participants.values()]
    # Loaded here only to be refused here, with one sentence, rather than in children that die again and again.
    for path in sagas:
        load_saga(path)
    by_name = {load(path, Participant).name: path for path in participants}
    say = speaker(console())
    platform = LocalPlatform(
        folder,
        sagas,
        by_name,
        say,
        say,
        coordinators=coordinators,
        port=port,
        jaeger=jaeger,
        metrics=metrics,
        incompatible_contracts=incompatible_contracts,
    )
    told = told_to_stop((*STOP_SIGNALS, signal.SIGHUP))  # Ctrl-C, SIGTERM, the end of the terminal
    try:
        starting = asyncio.create_task(platform.start())
        waiting = asyncio.create_task(told.wait())
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            say("up", f"ready: {len(platform.children)} processes, logs in {platform.logs}; Ctrl-C drains and ends all")
            if jaeger:
                say("up", f"every saga's trace goes to Jaeger; look at {jaeger}")
        await waiting
        starting.cancel()
        say("up", "draining")
    finally:
        await platform.stop()
    say("up", f"ended; streams and databases stay in {platform.folder}")


def speaker(out: Console) -> Say:
    """Prints lines with the name of the process in front, in its own colour."""
    colours: dict[str, str] = {}

    def say(name: str, line: str) -> None:
        colour = colours.setdefault(name, COLOURS[len(colours) % len(COLOURS)])
        out.print(parts((f"{name:<14}", colour), "| ", line), soft_wrap=True)

    return say

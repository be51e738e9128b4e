"""The life of a process: the signals that end it, its drain, and its end by force where a handler or thread never ends.

A process that was told to end and has drained ends with exit code 0; told a second time by the same signal, it ends at
once with exit code 1, which costs no more than a kill. What Antiphon noticed (an `AntiphonError` that
leaves the main coroutine) is a sentence on stderr and exit code 1, which the command line sees to; an end by force has
exit code 1, too.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Coroutine, Generator, Iterable
from concurrent.futures import thread as executors
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final

from .delivery import Pull

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
CLOSE_SECONDS: Final = 3.0
"""How long connections may take to close where something is left that would keep the process from its end."""
DRAIN_SECONDS: Final = 5.0
"""How long what is in hand may take to become durable once nothing more is asked for."""
LOOK_SECONDS: Final = 0.01
NICENESS: Final = 10
"""How much a process of little urgency stands back behind those that move sagas and share its machine."""


def on_stop(then: Callable[[], object], numbers: Iterable[int] = STOP_SIGNALS) -> None:
    """Have the event loop call `then` with each signal that tells this process to end. The same signal a second time
    ends it at once: whoever sends it does not want to wait for the drain."""
    loop = asyncio.get_running_loop()
    repeated = _Repeated()

    def take(number: int) -> None:
        repeated.take(number)
        then()

    for number in numbers:
        loop.add_signal_handler(number, take, number)


def told_to_stop(numbers: Iterable[int] = STOP_SIGNALS, then: Callable[[], object] = lambda: None) -> asyncio.Event:
    """An event that is set by the signals that tell this process to end; `then` is called before."""
    told = asyncio.Event()

    def stop() -> None:
        then()
        told.set()

    on_stop(stop, numbers)
    return told


async def until_told(main: Coroutine[Any, Any, None]) -> bool:
    """Run the main coroutine of a process. A signal that comes before the coroutine takes signals itself, as while it
    connects, ends it: nothing is in hand then.

    Args:
        main: it sees to signals by `on_stop` or `signals` from when it is ready.

    Returns:
        Whether it ran to its own end.
    """
    loop, is_told = asyncio.get_running_loop(), False
    running = asyncio.ensure_future(main)

    def stop() -> None:
        nonlocal is_told
        is_told = True
        running.cancel()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        await running
    except asyncio.CancelledError:
        if not is_told:
            raise
    return not is_told


class _Repeated:
    """Ends the process at once with a signal that was received before. Ctrl-C and the SIGTERM of whoever started the
    process may both come, and mean one end."""

    def __init__(self) -> None:
        self._received = set[int]()

    def take(self, number: int) -> None:
        """Take a signal; also within a signal handler, where a log could not be written."""
        if number in self._received:
            with suppress(OSError):  # where nobody reads it; raised, the error would hit what the signal interrupted
                os.write(2, b"antiphon: told to end a second time, it ends at once\n")
            os._exit(1)
        self._received.add(number)


async def drain(pulls: Iterable[Pull], awaited: Iterable[Pull], seconds: float = DRAIN_SECONDS) -> None:
    """Ask for nothing more, and wait until nothing is held any more.

    Args:
        pulls: all pulls of the process.
        awaited: those whose deliveries in hand are waited for. What the others hold is delivered again.
        seconds: how long to wait.
    """
    for pull in pulls:
        pull.stop()
    waited = list(awaited)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while any(pull.held for pull in waited) and loop.time() < end:
        await asyncio.sleep(LOOK_SECONDS)


def stand_back() -> None:
    """Leave the processor to more urgent processes."""
    os.nice(NICENESS)


class Ending:
    """The end of a process in which a handler or a thread may never end: the signal, and the end by force.

    Args:
        seconds: after how long a process that was told to end is ended by force. The system's stacks go to stderr then,
            and the exit code is 1. That needs no loop: a handler may stand in it and never let it turn.
    """

    def __init__(self, seconds: float) -> None:
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._threads = set(threading.enumerate())
        self._is_armed = False
        self._repeated = _Repeated()

    def tell(self, number: int, frame: FrameType | None) -> None:
        """Take a signal; the interpreter calls this wherever the main thread is."""
        self._repeated.take(number)
        if not self._is_armed:
            self._arm(self._seconds)
            self._loop.call_soon_threadsafe(self._complete)

    def settle(self, are_handlers_left: bool) -> None:
        """Note that all is drained: a process with a handler or thread left is ended by force, any other is not."""
        if not self._is_armed:
            return
        if are_handlers_left or self.threads():
            self._arm(CLOSE_SECONDS)
        else:
            faulthandler.cancel_dump_traceback_later()

    def threads(self) -> list[str]:
        """Where threads stand that would keep the process from its end."""
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] # documented, for this very purpose
        begun = [thread for thread in threading.enumerate() if thread not in self._threads and not thread.daemon]
        standing = [frames.get(thread.ident or 0) for thread in begun]
        return ["".join(traceback.format_stack(frame)) for frame in standing if frame is not None and _is_busy(frame)]

    def _complete(self) -> None:
        if not self.told.done():
            self.told.set_result(None)

    def _arm(self, seconds: float) -> None:
        self._is_armed = True
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)


@contextmanager
def signals(ending: Ending, numbers: Collection[int] = STOP_SIGNALS) -> Generator[None]:
    """Have signals tell an `Ending`, for as long as the block lasts.

    The interpreter takes the signals, not the loop, which a handler may keep from turning.
    """
    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.remove_signal_handler(number)  # the loop would go on to hear of them beside the interpreter
    before = {number: signal.signal(number, ending.tell) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_busy(frame: FrameType) -> bool:
    """Whether a thread is somewhere in its work; one of an executor's that has none waits in its outermost function."""
    return (frame.f_code.co_filename, frame.f_code.co_name) != (executors.__file__, "_worker")

"""Calls of an author's code. Each has a task of its own, which may end in any way, late, or never.

In the worker's own task an author's code could end the loop (asyncio lets SystemExit and KeyboardInterrupt through),
pass for the worker's drain (a time-out that cancels the current task), and keep the worker waiting for ever (by
catching the worker's cancel). Between two tasks all of that is an outcome like others.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any, Final, TypeVar

from .reasons import OwnWords

END_SECONDS: Final = 3.0
"""How long a handler that is cancelled may take to end. Together with a worker's grace below the 30 s after which
container platforms kill."""
PLACES_MAX: Final = 3
"""How many lines of a stack are named in a reason: where it stands, and how it got there."""

LOOK_SECONDS: Final = 0.005
"""How far apart a watch looks whether a handler is suspended. A loop that lags looks less often, so that it makes no
handler seem to wait."""
LOOKS: Final = 5
"""How many looks make a handler one that waits: 20 ms, and what is left of the time until the first look."""

T = TypeVar("T")


class Raised(Exception):
    """An author's code raised a BaseException: asyncio, context managers and drivers would act on it themselves."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class Deaf(OwnWords):
    """The handler was cancelled, and goes on all the same."""


class Call:
    """At most one call of an author's code, and the task that runs it.

    Args:
        watch: looks whether the code waits, where others wait for the end of its transaction.
        on_wait: called once if it does.
    """

    __slots__ = ("_on_wait", "_watch", "task")

    def __init__(self, watch: Watch | None = None, on_wait: Callable[[], None] | None = None) -> None:
        self.task: asyncio.Task[Any] | None = None
        self._watch, self._on_wait = watch, on_wait

    @property
    def goes_on(self) -> bool:
        """Whether the author's code was called and has not come to its end."""
        return self.task is not None and not self.task.done()

    async def make(self, code: Callable[[], Awaitable[T]]) -> T:
        """Run an author's code to its end. A cancel of ours is passed on to it, and waited for, but not for ever.

        Raises:
            Exception: what it raised.
            Raised: it raised something that is no Exception.
            CancelledError: this task was cancelled, and the author's code has ended because of that.
            Deaf: this task was cancelled, and the author's code goes on.
        """
        task = self.task = asyncio.create_task(_tamed(code))
        is_ours = False
        if self._watch is not None:
            self._watch.begin(self._on_wait)
        try:
            await _ended(task)
        except asyncio.CancelledError:
            is_ours = True
            if not task.done():
                await _end(task)
            if isinstance(task.exception(), Raised):
                raise
            if (current := asyncio.current_task()) is not None:
                current.uncancel()  # it was heard, and answered with an outcome
        finally:
            if self._watch is not None:
                self._watch.end()
        if task.cancelled() and not is_ours:
            raise Raised(asyncio.CancelledError("the handler cancelled itself"))
        result: T = task.result()
        return result

    def stack(self) -> str:
        """Where the author's code stands now, as a traceback writes it."""
        return "" if self.task is None else "".join(traceback.StackSummary.extract(_frames(self.task)).format())

    def whereabouts(self) -> str:
        """The same in a few words, without the folders of this machine: `stock.py:43 in reserve`."""
        if self.task is None:
            return ""
        frames = [(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in _frames(self.task)]
        theirs = [each for each in frames if each[0] != __file__][-PLACES_MAX:]
        return ", ".join(f"{_file_name(path)}:{line} in {name}" for path, line, name in theirs)


class Watch:
    """Notices a call that is suspended for long, one call at a time: others wait for its end.

    Args:
        looks: how many in a row make it long.

    The awaits of its transaction complete at once, so whenever the loop comes to look, it waits for something else.
    """

    __slots__ = ("_looks", "_looks_max", "_on_wait", "_timer")

    def __init__(self, looks: int = LOOKS) -> None:
        self._looks_max = looks
        self._on_wait: Callable[[], None] | None = None
        self._looks = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, on_wait: Callable[[], None] | None) -> None:
        """Watch a call, which begins now."""
        self._on_wait, self._looks = on_wait, 0
        if self._timer is None:
            self._look_later()

    def end(self) -> None:
        """The call has ended. The timer goes on to its next turn: one for each call would cost more."""
        self._on_wait = None

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._on_wait is None:
            return
        self._look_later()
        self._looks += 1
        if self._looks == self._looks_max:
            self._on_wait()


_IS_AUTHORS: Final[ContextVar[bool]] = ContextVar("antiphon_authors_code", default=False)
"""Whether the current task runs an author's code, or was made by a task that does."""


TAMING: Final = "antiphon_taming"


def tame(loop: asyncio.AbstractEventLoop) -> None:
    """Keep SystemExit and KeyboardInterrupt inside the tasks that an author's code makes: asyncio would let them out of
    the loop, whichever task raised them, and the process would end."""
    former = loop.get_task_factory()
    if getattr(former, "__name__", "") == TAMING:
        return

    def antiphon_taming(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        tamed = _tamed_child(coroutine) if _IS_AUTHORS.get() and asyncio.iscoroutine(coroutine) else coroutine
        return former(loop, tamed, **options) if former else asyncio.Task(tamed, loop=loop, **options)

    assert antiphon_taming.__name__ == TAMING
    loop.set_task_factory(antiphon_taming)


async def _tamed_child(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        raise Raised(error) from error


async def _tamed(code: Callable[[], Awaitable[T]]) -> T:
    _IS_AUTHORS.set(True)
    try:
        return await code()
    except Exception:
        raise
    except BaseException as error:
        raise Raised(error) from error


async def _ended(task: asyncio.Task[Any]) -> None:
    """Wait for a task, and leave it alone if the wait is cancelled: `asyncio.wait` for one, at half its cost."""
    ended = asyncio.get_running_loop().create_future()

    def tell(_: object) -> None:
        if not ended.done():
            ended.set_result(None)

    task.add_done_callback(tell)
    await ended


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel an author's code.

    Raises:
        Deaf: it did not end within the time for that.
    """
    task.cancel()
    await asyncio.wait((task,), timeout=END_SECONDS)
    if not task.done():
        raise Deaf("its handler goes on although it was cancelled")


def _frames(task: asyncio.Task[Any]) -> Iterator[tuple[FrameType, int]]:
    """The frames of a task that waits, the outermost first: `Task.get_stack` knows but one of them."""
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = next((f for name in ("cr_frame", "gi_frame", "ag_frame") if (f := getattr(waiting, name, None))), None)
        if frame is not None:
            yield frame, frame.f_lineno
        waiting = next(
            (w for name in ("cr_await", "gi_yieldfrom", "ag_await") if (w := getattr(waiting, name, None))), None
        )


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]

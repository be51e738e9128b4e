"""The same done for many things, several of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def for_each(things: Iterable[T], do: Callable[[T], Awaitable[object]], at_once: int) -> None:
    """Do something for each of many things, in their order.

    Args:
        things: for what.
        do: does it for one of them.
        at_once: how many are under way at the same time at most.

    Raises:
        Exception: the first failure. What is under way then is cancelled, and what has not begun never does.
    """
    left = iter(things)

    async def work() -> None:
        for each in left:
            await do(each)

    workers = [asyncio.ensure_future(work()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for each in workers:
            each.cancel()
        await asyncio.wait(workers)

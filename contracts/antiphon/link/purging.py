"""Parts of streams purged: messages by a filter of their subjects, or one by its sequence."""

from __future__ import annotations

from typing import Any, Final

from antiphon.contracts.errors import Ambiguous

from .connection import Link
from .setup import api

PAGE: Final = 100
NOT_THERE: Final = frozenset({"no message found", "stream store EOF"})
"""What the server says of a message that was deleted before, or never was; its code is that of any failure (2.15.1)."""


async def purge(link: Link, stream: str, subject_filter: str, before: int = 0) -> int:
    """Remove what matches for good. Asked twice it removes nothing more.

    Args:
        link: a connection that may purge the stream.
        stream: its name.
        subject_filter: what is removed.
        before: only messages in front of this sequence; 0 for all.

    Returns:
        How many messages were removed.

    Raises:
        Ambiguous: nobody knows whether it was done; ask again.
    """
    wanted: dict[str, Any] = {"filter": subject_filter, **({"seq": before} if before else {})}
    answer = await api(link, f"STREAM.PURGE.{stream}", wanted)
    if error := answer.get("error"):
        raise Ambiguous(f"stream {stream} was not purged of {subject_filter}: {error.get('description')}")
    removed: int = answer.get("purged", 0)
    return removed


async def delete(link: Link, stream: str, sequence: int) -> None:
    """Remove one message for good, if it is there, and overwrite its bytes.

    Raises:
        Ambiguous: nobody knows whether it was done; ask again.
    """
    answer = await api(link, f"STREAM.MSG.DELETE.{stream}", {"seq": sequence})
    if (error := answer.get("error")) and error.get("description") not in NOT_THERE:
        raise Ambiguous(f"message {sequence} of stream {stream} was not deleted: {error.get('description')}")


async def erase(link: Link, stream: str, subject_filter: str, but: int = 0) -> None:
    """Delete what matches, one by one, so that its bytes are overwritten. A purge leaves them in the server's files
    until it writes these anew (2.15.1).

    Args:
        link: a connection that may read the stream and delete from it.
        stream: its name.
        subject_filter: what is deleted.
        but: the sequence of a message that stays.

    Raises:
        Ambiguous: nobody knows whether all was done; ask again.
    """
    after = 0
    while page := await link.next_page(stream, subject_filter, after + 1, PAGE):
        after = page[-1].sequence
        for message in page:
            if message.sequence != but:
                await delete(link, stream, message.sequence)

"""Archives of sagas that have ended: written from the streams, and read in their place."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator
from pathlib import Path

from antiphon.contracts import subjects
from antiphon.contracts.errors import UnknownSaga
from antiphon.contracts.identity import SagaKey, check_token, is_token
from antiphon.contracts.reader import is_purged
from antiphon.contracts.stored import SagaPages, StoredMessage
from antiphon.coordinator.views.timeline import Summary, timeline_of
from antiphon.link import Link
from antiphon.link.journals import read_journals
from antiphon.link.sagas import read_events
from antiphon.tracing.export.archive import (
    Archived,
    Head,
    archive,
    archived,
    archived_ids,
    is_archived,
    read_archived,
    require_writable,
)

from ..modules import CannotLoad
from ..render.plain import warn
from ..render.tables import print_summaries, print_timeline
from ..render.terminal import say, say_json
from .filters import more_than
from .sagas import find, reader, with_link

PAGE = 200


async def archive_sagas(server: str, folder: Path, saga_type: str, as_json: bool) -> None:
    """Archive all sagas of a type that have ended, and are neither archived nor purged."""
    if saga_type != "*":
        check_token(saga_type, "saga type")
    require_folder(folder)
    written = before = purged = 0
    may_be_id = len(folder.parts) == 1 and is_token(folder.name) and not folder.exists()  # noqa: ASYNC240 - once
    if not may_be_id:
        require_writable(folder)
    async with reader(server) as link:
        if may_be_id:
            await _require_no_saga(link, folder)
            require_writable(folder)
        async for page in _pages_of_ends(link, saga_type):
            ends = {subjects.parse_entry(end.subject).saga: end for end in page}
            wanted = [key for key, end in ends.items() if not is_archived(folder, key, end)]
            before += len(ends) - len(wanted)
            new = await _archive_all(link, folder, wanted)
            written, purged = written + new, purged + len(wanted) - new
    if as_json:
        say_json({"archived": written, "archived_before": before, "purged_before": purged})
    else:
        gone = f"; of {purged} nothing but the end was left" if purged else ""
        say(f"archived in {folder}: {written}, there before: {before}{gone}.")


def require_folder(folder: Path) -> None:
    """Refuse what looks like `type/id`: the other commands take a saga where this one takes a folder.

    Raises:
        CannotLoad: it is not there, and neither is the folder that it would be in.
    """
    is_saga = len(folder.parts) == 2 and all(map(is_token, folder.parts))
    if is_saga and not folder.exists() and not folder.parent.exists():
        raise CannotLoad(_no_folder(folder))


async def _require_no_saga(link: Link, folder: Path) -> None:
    """Refuse the id of a saga that there is."""
    try:
        await find(link, folder.name)
    except UnknownSaga:
        return
    raise CannotLoad(_no_folder(folder))


def _no_folder(folder: Path) -> str:
    return (
        f"{folder} is no folder, and looks like a saga. antiphon archive writes all sagas that have ended into a "
        f"FOLDER; one of them is seen with antiphon show {folder}. If you mean a new folder: mkdir -p {folder}"
    )


async def _pages_of_ends(link: Link, saga_type: str) -> AsyncIterator[list[StoredMessage]]:
    """The ends of sagas of a type, or of all, a page at a time and of one pair of streams after the other."""
    for stream in link.pairs.saga:
        after = 0
        while page := await link.next_page(stream, subjects.ends_filter(saga_type), after + 1, PAGE):
            after = page[-1].sequence
            yield page


async def _archive_all(link: Link, folder: Path, keys: list[SagaKey]) -> int:
    """Archive sagas, and return how many there were; of the others nothing but their ends is left."""
    count = 0
    for key, entries in (await read_journals(link, keys)).items():
        events = (await read_events(link, key, entries)).messages
        if not is_purged(entries, events):
            count += archive(folder, key, entries, events)
    return count


def read_from(folder: Path, id: str) -> Archived:
    """The saga that a person means by `id` or `type/id`, from an archive.

    Raises:
        NotArchived: the archive has none of that name.
        CannotLoad: it has several.
    """
    if "/" in id:
        saga_type, _, saga_id = id.partition("/")
        return read_archived(folder, SagaKey.of(saga_type, saga_id))
    keys = archived_ids(folder, check_token(id, "saga id"))
    match keys:
        case []:
            raise UnknownSaga("", id, f"The archive {folder} has none.")
        case [key]:
            return read_archived(folder, key)
        case _:
            raise CannotLoad(f"several sagas have the id {id}: {', '.join(map(str, keys))}. Give the type as well.")


def list_archived(folder: Path, saga_type: str, limit: int, as_json: bool) -> None:
    """Print the sagas of an archive, those that were started last first."""
    if saga_type != "*":
        check_token(saga_type, "saga type")
    heads, unreadable = list[Head](), 0
    for each in archived(folder, saga_type):
        if isinstance(each, Head):
            heads.append(each)
        else:
            unreadable += 1
    newest = heapq.nlargest(limit, heads, key=lambda head: head.started)
    found = [
        Summary(
            type=each.type,
            id=each.id,
            state="compensated" if each.outcome == "compensated" else "completed",
            started=each.started,
            ended=each.ended,
            reason=each.reason,
        )
        for each in newest
    ]
    if as_json:
        say_json(found)
    else:
        print_summaries(found, saga_type)
    if len(heads) > limit:
        warn(f"antiphon: {more_than(limit, len(heads))}")
    if unreadable:
        warn(f"antiphon: files that cannot be read in {folder}: {unreadable}")


def show_archived(folder: Path, id: str, as_json: bool) -> None:
    """Print one saga's timeline, from an archive."""
    found = read_from(folder, id)
    told = timeline_of(found.key, SagaPages(found.entries, found.events))
    if as_json:
        say_json(with_link(told, f"{told.type}/{told.id}"))
    else:
        print_timeline(told)

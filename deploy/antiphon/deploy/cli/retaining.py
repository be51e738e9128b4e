"""What a person does to old sagas: has one forgotten, and purges inboxes of those that are over."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from antiphon.contracts import subjects
from antiphon.contracts.errors import Unusable
from antiphon.contracts.identity import COORDINATOR, SagaKey, is_token
from antiphon.contracts.topology import EVENTS, SAGA, may_be_participant
from antiphon.coordinator.client.client import Antiphon
from antiphon.coordinator.definition.retention import seconds_of
from antiphon.coordinator.views.timeline import child_ids
from antiphon.link import Link, StoredMessage

from ..modules import WrongValue
from ..render.plain import warn
from ..render.terminal import say, say_json
from .operating import OF_CLIENTS, who_asks
from .sagas import find, only_for, reader
from .values import value_of


async def forget_saga(
    server: str, user: str, timeout: float, as_json: bool, id: str, reason: str, databases: Mapping[str, str]
) -> None:
    """Have a saga forgotten by the coordinators, then by the inboxes of the participants whose databases are given."""
    from antiphon.participants.purging import forget_saga as forget_in
    from antiphon.participants.purging import require_inbox

    if not reason.strip():
        raise WrongValue("--reason: say why; it stays, with who had it forgotten.")
    for each in databases.values():  # before anything is deleted
        await require_inbox(each)
    name = user or who_asks()
    with only_for("operators", OF_CLIENTS):
        async with reader(server) as link:
            key = await find(link, id)
            journal = await link.read_all(SAGA, [subjects.journal_filter(key)])
            children = await _children(link, key, journal)
            participants = _participants_in(journal) | await _sources(link, key)
        for each in sorted(databases.keys() - participants) if participants else ():
            warn(
                f"antiphon: nothing is known of a participant {each} in saga {key}, but of "
                f"{', '.join(sorted(participants))}"
            )
        async with Antiphon.connect(server, name=name, patient=False) as antiphon:
            end = await antiphon.operator(name, timeout=timeout).forget(key.type, key.id, reason)
    answers = {each: await forget_in(url, key) for each, url in databases.items()}
    left = sorted(participants - databases.keys())
    if as_json:
        told = {"type": key.type, "id": key.id, "forgotten": end.forgotten, "answers": answers}
        say_json({**told, "inboxes_left": left, "children": children})
        return
    say(f"saga {key} is forgotten, {end.forgotten}. Its outcome stays: {end.outcome}.")
    for each, count in answers.items():
        say(f"inbox of {each}: {count} answers deleted.")
    if left:
        options = " ".join(f"--database {each}=URL" for each in left)
        warn(
            f"antiphon: the answers of {', '.join(left)} are in their databases still: the same command with {options}"
        )
    if not participants:
        warn(
            "antiphon: its journal was gone before, so that nobody knows whose inboxes hold answers of it: the same "
            "command with --database NAME=URL for each participant"
        )
    warn(
        "antiphon: whoever starts it again begins nothing, but stores what the start says: the same command removes it"
    )
    if children:
        warn(f"antiphon: it has started sagas, which are to be forgotten one by one: {', '.join(children)}")


def _participants_in(journal: list[StoredMessage]) -> set[str]:
    """Whom a journal commands."""
    found: set[str] = set()
    for message in journal:
        with suppress(Unusable):
            command = subjects.parse_entry(message.subject).command
            if command is not None and command.participant != COORDINATOR:
                found.add(command.participant)
    return found


async def _sources(link: Link, key: SagaKey) -> set[str]:
    """Who has said something in a saga: participants that react to events are commanded by nobody."""
    events = await link.read_all(EVENTS, [subjects.saga_events_filter(key)])
    return set(filter(may_be_participant, (subjects.saga_source(each.subject) for each in events)))


async def _children(link: Link, key: SagaKey, journal: list[StoredMessage]) -> list[str]:
    wanted = [subjects.starts_filter(saga_id=each, source=COORDINATOR) for each in child_ids(key, journal)]
    starts = await link.read_all(EVENTS, wanted) if wanted else []
    return [str(child) for message in starts if (child := subjects.saga_in(message.subject)) is not None]


async def purge_inbox(server: str, database: str, older_than: str, ends_gone: bool, as_json: bool) -> None:
    """Delete what an inbox holds of sagas whose journals were purged."""
    from antiphon.participants.purging import Over
    from antiphon.participants.purging import purge_inbox as purge_in

    with value_of():
        seconds = seconds_of(older_than, "--older-than")
    if seconds is None:
        raise WrongValue(f"--older-than: nothing is older than {older_than}. Give a time, such as 30d.")
    before = datetime.now(UTC) - timedelta(seconds=seconds)
    async with reader(server) as link:

        async def are_over(keys: list[SagaKey]) -> Over:
            starts = await link.read_all(EVENTS, [each for key in keys for each in subjects.start_subjects(key)])
            ends = await link.read_all(SAGA, [subjects.end_subject(key) for key in keys])
            purged = {*keys} - {subjects.saga_in(each.subject) for each in starts}
            return Over(purged, purged - {subjects.saga_in(each.subject) for each in ends})

        removed = await purge_in(_url_in(database), before, are_over, with_gone=ends_gone)
    if as_json:
        say_json({"deleted": removed.rows, "sagas_left": removed.left})
        return
    say(f"rows deleted, of sagas whose journals were purged: {removed.rows}.")
    if removed.left:
        warn(
            f"antiphon: sagas whose rows stay, because this server knows nothing of them, not even their ends: "
            f"{removed.left}. Is it the right server, with all its streams? Where ends are purged as well "
            "(--keep-ends), add --ends-gone."
        )


def _url_in(database: str) -> str:
    """The URL in `URL` or `NAME=URL`, which other commands take."""
    name, _, url = database.partition("=")
    return url if url and is_token(name) else database

"""Whether each role may do what it must, and nothing else, tried with its own credentials and without leaving a trace.

The server decides on a right before it looks at what is sent. So each subject is published to with a body that is no
request, and under a condition that no stream meets: a right that is there changes nothing and stores nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from antiphon.contracts.errors import AntiphonError, PlatformError, RightsMissing
from antiphon.contracts.headers import NO_STREAM
from antiphon.contracts.identity import COORDINATOR
from antiphon.contracts.pairs import Pairs
from antiphon.contracts.subjects import EVENTS_FILTER, SAGA_FILTER, matches
from antiphon.contracts.topology import ADMINISTRATOR, BUCKETS, Bound
from antiphon.link import Credentials, Link
from antiphon.link.setup import bounds_set

from ..rights import API, SERVER_ENVIRONMENT, SIGNAL, VERBS, Grant, Rights, User, bound_needs, inbox_of, of_pairs
from .findings import Deployment, Finding
from .streams import participants_of

NOT_TRIED: Final = frozenset((ADMINISTRATOR, "system"))
"""Who may do everything."""
ANEW: Final = (
    "have the accounts made anew, by antiphon rights with all participants, clients and operators, and the server "
    "reload them"
)
SECONDS: Final = 10.0
"""How long a server may take to let a user in, and to answer it."""
TOKEN: Final = "antiphon-doctor"
"""What stands in a subject for any token: no saga, stream or consumer is called so."""
NO_REQUEST: Final = b"{antiphon doctor tries a right"
"""No body that any of the server's requests takes. It begins as JSON does, since a purge takes whatever is none for a
purge of everything (nats-server 2.15.1)."""
SHOWN: Final = 5
"""So many subjects are named of one user."""


async def rights(found: Deployment) -> list[Finding]:
    """What the users of a folder that `antiphon rights` made may do. What coordinators need for clients with a bound is
    told where these are looked at."""
    if not found.rights_folder:
        said = "what each role may do is not tried without its credentials"
        return [Finding("rights", "unknown", said, "--rights FOLDER, which antiphon rights wrote")]
    known = rights_of(found, await participants_of(found.link))
    users = {user.name: user for account in known.accounts() for user in account.users}
    needed = (each for user in users.values() for each in user.publish)
    of_clients = {concrete(each) for need in _of_clients(known) for each in of_pairs(need, found.link.pairs)}
    of_bounds = {each for bound in await bounds_set(found.link) for each in used_for(bound)}
    subjects = {*_changes(found.link.pairs), *map(concrete, needed), *of_clients, *of_bounds}
    inboxes = [inbox_of(user) for user in users]
    findings = list[Finding]()
    there = credentials_in(Path(found.rights_folder), found.credentials)
    for name, credentials in there.items():
        if (user := users.get(name)) is None:
            remedy = f"for a client --client {name}=TYPE, for a person --operator {name}, as for antiphon rights"
            findings.append(Finding("rights", "unknown", f"what {name} may do was not said", remedy))
        else:
            # Accounts are made before a bound is set: a coordinator may be let store what that client will say.
            others = subjects - of_clients - of_bounds if name == COORDINATOR else subjects
            findings += await _tried(found.servers, user, credentials, sorted(others), inboxes)
    for name in sorted({*found.clients, *found.operators} - there.keys()):
        said = f"{found.rights_folder} has no credentials of {name}: what it may do is not tried"
        findings.append(Finding("rights", "warning", said, "name the client or operator as antiphon rights did"))
    return findings


def rights_of(found: Deployment, participants: Sequence[str]) -> Rights:
    """The rights that there should be, but for bounds.

    Args:
        found: what was said of clients, operators and participants.
        participants: those that are set up.

    Raises:
        DefinitionError: there can be no such users.
    """
    operators = found.operators or ("operator",)
    return Rights(participants, found.clients, operators, starts=found.starts, pairs=found.link.pairs.count)


def used_for(bound: Bound) -> list[str]:
    """Subjects that coordinators publish to for a client with a bound."""
    needs = bound_needs({bound.client: [bound.saga_type]})
    return [concrete(need.subject) for need in needs if need.kind != "feed"]


def credentials_in(folder: Path, own: Credentials) -> dict[str, Credentials]:
    """How the users of a folder log in, by their names: files that `antiphon rights` wrote, in either form.

    Args:
        folder: the folder.
        own: whose certificates all of them use.

    Raises:
        PlatformError: there is no such folder, it holds none of these files, or one cannot be read.
    """
    found = dict[str, Credentials]()
    tls = {"ca_file": own.ca_file, "cert_file": own.cert_file, "key_file": own.key_file}
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix == ".creds":
                found[path.stem] = Credentials(creds_file=str(path), **tls)
            elif path.suffix == ".env" and path.name != SERVER_ENVIRONMENT:
                lines = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
                found[path.stem] = Credentials(user=lines["NATS_USER"], password=lines["NATS_PASSWORD"], **tls)
    except (OSError, UnicodeDecodeError, KeyError) as error:
        raise PlatformError(f"the credentials in {folder} cannot be read ({error}).") from None
    if not found:
        raise PlatformError(f"{folder} has no credentials: neither NAME.env nor NAME.creds.")
    return {name: each for name, each in found.items() if name not in NOT_TRIED}


def concrete(subject_filter: str) -> str:
    """A subject that falls under a filter, and names nothing that is there."""
    return ".".join(TOKEN if token in ("*", ">") else token for token in subject_filter.split("."))


def _changes(pairs: Pairs) -> Iterator[str]:
    """Requests by which an administrator changes and reads everything, which nobody else may. What would destroy is
    asked of a stream that is not there: whoever may do that may do it by a wildcard."""
    yield from (f"{API}.STREAM.{verb}.{TOKEN}" for verb in ("CREATE", "UPDATE", "DELETE", "PURGE", "SNAPSHOT"))
    yield from (f"{API}.CONSUMER.{verb}.{TOKEN}.{TOKEN}" for verb in ("CREATE", "DELETE"))
    yield f"{API}.STREAM.MSG.DELETE.{TOKEN}"
    for stream in (each.name for each in (*pairs.streams(), *BUCKETS)):
        yield f"{API}.STREAM.MSG.GET.{stream}"
        yield f"{API}.DIRECT.GET.{stream}"


def _of_clients(known: Rights) -> Iterator[str]:
    """All that a client may be let do with sagas of the types that are named: what it was not granted is not for it."""
    granted = {grant.saga_type for grants in known.clients.values() for grant in grants}
    for saga_type in sorted(granted.union(*known.starts.values())):
        needs = Grant(saga_type, (*VERBS, f"{SIGNAL}{TOKEN}")).needs()
        yield from (need.subject for need in needs if need.kind != "feed")


async def _tried(
    servers: Sequence[str], user: User, credentials: Credentials, subjects: Iterable[str], inboxes: Iterable[str]
) -> list[Finding]:
    """Try every subject as one user."""
    try:
        async with connected_as(user.name, servers, credentials) as link:
            own = [concrete(each) for each in user.publish]
            others = [each for each in subjects if not any(matches(mine, each) for mine in user.publish)]
            theirs = [each for each in (*inboxes, SAGA_FILTER, EVENTS_FILTER) if each not in user.subscribe]
            refused = await refused_of(link, [*own, *others], theirs)
    except RightsMissing as error:
        return [Finding("rights", "fault", f"{user.name} is not let in: {error}", ANEW)]
    except AntiphonError as error:
        return [Finding("rights", "unknown", f"{user.name} could not connect: {error}")]
    lacks = sorted(each for each in own if each in refused)
    excess = sorted(each for each in (*others, *theirs) if each not in refused)
    return _judged(user.name, len(own), len(others) + len(theirs), lacks, excess)


@asynccontextmanager
async def connected_as(name: str, servers: Sequence[str], credentials: Credentials) -> AsyncGenerator[Link]:
    """A connection of one user, for the length of the block.

    Raises:
        RightsMissing: the server does not let it in.
        PlatformError: the server cannot be reached.
    """
    link = await Link.connect(list(servers), name=name, credentials=credentials, timeout_seconds=SECONDS, patient=False)
    try:
        yield link
    finally:
        await link.close()


async def refused_of(link: Link, published: Iterable[str], subscribed: Iterable[str] = ()) -> set[str]:
    """Which of some subjects the server does not let a user publish or subscribe to."""
    refused, inbox = set[str](), link.new_inbox()

    def note(subject: str, error: RightsMissing) -> None:
        refused.add(subject)

    for subject in published:
        link.on_refused[subject] = partial(note, subject)
        link.send(subject, NO_REQUEST, NO_STREAM, reply=f"{inbox}.1")
    for subject in subscribed:
        link.on_refused[subject] = partial(note, subject)
        await link.subscribe(subject, lambda subject, reply, data, headers: None)
    await link.flushed()
    await link.flushed()  # the refusals came before the second answer
    return refused


def _judged(user: str, may: int, must_not: int, lacks: list[str], excess: list[str]) -> list[Finding]:
    findings = list[Finding]()
    if excess:
        said = f"{user} may use {_listed(excess)}, which is not for it"
        findings.append(Finding("rights", "fault", said, ANEW))
    if lacks:
        findings.append(Finding("rights", "fault", f"{user} may not use {_listed(lacks)}, which it needs", ANEW))
    said = f"{user} may use the {may} subjects that it needs, and none of {must_not} that are not for it"
    return findings or [Finding("rights", "fine", said)]


def _listed(subjects: list[str]) -> str:
    more = len(subjects) - SHOWN
    return ", ".join(subjects[:SHOWN]) + (f" and {more} more" if more > 0 else "")

"""Whether each role may do what it must, and nothing else, tried with its own credentials and without leaving a trace.

The server decides on a right before it looks at what is sent. So each subject is published to with a body that is no
request, and under a condition that no stream meets: a right that is there changes nothing and stores nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from antiphon.contracts.errors import AntiphonError, PlatformError, RightsMissing
from antiphon.contracts.headers import NO_STREAM
from antiphon.contracts.identity import COORDINATOR
from antiphon.contracts.pairs import Pairs
from antiphon.contracts.subjects import EVENTS_FILTER, SAGA_FILTER, matches
from antiphon.contracts.topology import ADMINISTRATOR, BUCKETS
from antiphon.link import Credentials, Link
from antiphon.link.setup import bounds_set

from ..rights import API, SERVER_ENVIRONMENT, SIGNAL, VERBS, Grant, Rights, User, inbox_of, of_pairs
from .clients import NO_REQUEST, SECONDS, TOKEN, starts_of
from .findings import Deployment, Finding
from .streams import participants_of

NOT_TRIED: Final = frozenset((ADMINISTRATOR, "system"))
"""Who may do everything."""
ANEW: Final = (
    "have the accounts made anew, by antiphon rights with all participants, clients and operators, and the server "
    "reload them"
)
SHOWN: Final = 5
"""So many subjects are named of one user."""


class Role(msgspec.Struct, frozen=True):
    """A user whose rights are tried.

    Args:
        user: what it may do, as `antiphon rights` gives it.
        credentials: how it logs in.
        grants: what it may do as a client.
    """

    user: User
    credentials: Credentials
    grants: Sequence[Grant] = ()


async def rights(found: Deployment) -> list[Finding]:
    """What the users of a folder that `antiphon rights` made may do."""
    if not found.rights_folder:
        said = "what each role may do is not tried without its credentials"
        return [Finding("rights", "unknown", said, "--rights FOLDER, which antiphon rights wrote")]
    bounds = {(each.client, each.saga_type): each.most for each in await bounds_set(found.link)}
    known = Rights(
        await participants_of(found.link),
        {**_with_a_bound(bounds), **found.clients},
        found.operators or ("operator",),
        starts=found.starts,
        bounds=_types_of(bounds, found.clients),
        pairs=found.link.pairs.count,
    )
    unsaid = known.clients.keys() - found.clients.keys()
    users = {user.name: user for account in known.accounts() for user in account.users if user.name not in unsaid}
    needed = (each for user in users.values() for each in user.publish)
    of_clients = {concrete(each) for need in _of_clients(known) for each in of_pairs(need, found.link.pairs)}
    subjects = {*_changes(found.link.pairs), *map(concrete, needed), *of_clients}
    inboxes = [inbox_of(user) for user in users]
    findings = list[Finding]()
    there = credentials_in(Path(found.rights_folder), found.credentials)
    for name, credentials in there.items():
        if (user := users.get(name)) is None:
            remedy = f"for a client --client {name}=TYPE, for a person --operator {name}, as for antiphon rights"
            findings.append(Finding("rights", "unknown", f"what {name} may do was not said", remedy))
        else:
            role = Role(user, credentials, found.clients.get(name, ()))
            # Accounts are made before a bound is set: a coordinator may be let store what that client will say.
            others = subjects - of_clients if name == COORDINATOR else subjects
            findings += await _tried(found.servers, role, sorted(others), inboxes, bounds)
    for name in sorted({*found.clients, *found.operators} - there.keys()):
        said = f"{found.rights_folder} has no credentials of {name}: what it may do is not tried"
        findings.append(Finding("rights", "warning", said, "name the client or operator as antiphon rights did"))
    return findings


def _with_a_bound(bounds: Iterable[tuple[str, str]]) -> dict[str, list[Grant]]:
    """The clients with a bound, as if they had no more rights than it needs: coordinators serve also those whose rights
    were not said."""
    found = defaultdict[str, list[Grant]](list)
    for client, saga_type in bounds:
        found[client].append(Grant(saga_type))
    return found


def _types_of(bounds: Iterable[tuple[str, str]], said: Mapping[str, Sequence[Grant]]) -> dict[str, list[str]]:
    """The saga types with a bound, by the client, but for those with which a client has nothing to do, as was said."""
    types = defaultdict[str, list[str]](list)
    for client, saga_type in bounds:
        if client not in said or any(grant.saga_type == saga_type for grant in said[client]):
            types[client].append(saga_type)
    return types


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
    servers: Sequence[str],
    role: Role,
    subjects: Iterable[str],
    inboxes: Iterable[str],
    bounds: Mapping[tuple[str, str], int],
) -> list[Finding]:
    """Try every subject as one user."""
    user = role.user
    try:
        link = await Link.connect(
            list(servers), name=user.name, credentials=role.credentials, timeout_seconds=SECONDS, patient=False
        )
    except RightsMissing as error:
        return [Finding("rights", "fault", f"{user.name} is not let in: {error}", ANEW)]
    except AntiphonError as error:
        return [Finding("rights", "unknown", f"{user.name} could not connect: {error}")]
    try:
        own = [concrete(each) for each in user.publish]
        others = [each for each in subjects if not any(matches(mine, each) for mine in user.publish)]
        theirs = [each for each in (*inboxes, SAGA_FILTER, EVENTS_FILTER) if each not in user.subscribe]
        refused = await refused_of(link, [*own, *others], theirs)
        lacks = sorted(each for each in own if each in refused)
        excess = sorted(each for each in (*others, *theirs) if each not in refused)
        uncounted = [] if lacks else await starts_of(link, user.name, role.grants, bounds)
    finally:
        await link.close()
    return uncounted or _judged(user.name, len(own), len(others) + len(theirs), lacks, excess)


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

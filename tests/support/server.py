"""A real server for tests: `plain` lets everybody in, `accounts` is the production form, `jwt` the same, signed, and
`pairs` the same with sagas spread over three pairs of streams.

with platform(tmp_path, "accounts", participants=("inventory",)) as up:
    await up.set_up()
    link = await up.connect("inventory")
    up.server.kill()
    up.server.start()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import isawaitable
from pathlib import Path
from typing import Literal

from antiphon.contracts.identity import CLIENT
from antiphon.contracts.pairs import ONE_PAIR, Pairs
from antiphon.contracts.targets import Loss
from antiphon.contracts.topology import PARTICIPANT_ACK_WAIT_SECONDS, Bound, Listener
from antiphon.deploy.admin.logins import NOBODY, Logins, by_creds, by_password
from antiphon.deploy.admin.rights import EVERYTHING, Rights
from antiphon.deploy.local.server import ClusterSeat, Server, seats
from antiphon.link import Credentials, Link, set_up
from antiphon.link.pairs import VARIABLE

Form = Literal["plain", "accounts", "jwt", "pairs"]
FORMS: tuple[Form, ...] = ("plain", "accounts")
FORMS_AND_PAIRS: tuple[Form, ...] = (*FORMS, "pairs")
PAIRS = 3
RIGHTS_FORMS: tuple[Form, ...] = ("accounts", "jwt")
"""For what is about rights: they are the same in both."""

PARTICIPANTS = ("inventory", "billing", "shipping")


@dataclass
class Platform:
    """One server or a cluster, and who may connect to it."""

    nodes: list[Server]
    form: Form
    participants: tuple[str, ...]
    logins: Logins = NOBODY
    pairs: Pairs = ONE_PAIR

    @property
    def server(self) -> Server:
        """The server, or the first of the cluster."""
        return self.nodes[0]

    @property
    def servers(self) -> str:
        """What goes where a program takes `servers`."""
        return ",".join(node.url for node in self.nodes)

    def credentials(self, user: str) -> Credentials:
        """How a user of the forms with rights connects: administrator, coordinator, client, or a participant's name.

        In the plain form everybody is nobody.
        """
        return Credentials() if self.form == "plain" else self.logins.users[user]

    def environment(self, user: str) -> dict[str, str]:
        """The same for a child process, with NATS_URL."""
        told = {VARIABLE: str(self.pairs.count)} if self.pairs.count > 1 else {}
        return {"NATS_URL": self.servers, **told, **({} if self.form == "plain" else self.logins.environment(user))}

    async def connect(self, user: str, name: str = "") -> Link:
        """A link of that user, which knows the pairs of streams; its name is the user's unless another is given."""
        link = await Link.connect(self.servers, name=name or user, credentials=self.credentials(user))
        link.spread_over(self.pairs)
        return link

    async def set_up(
        self,
        ack_wait_seconds: float = PARTICIPANT_ACK_WAIT_SECONDS,
        listeners: Sequence[Listener] = (),
        events_bytes: int = 0,
        client_bounds: Sequence[Bound] = (),
    ) -> None:
        """Do the administrator's step: streams, and the consumers of the platform and of all participants.

        Listeners are those that react to events as well.
        """
        link = await self.connect("administrator")
        try:
            names: list[str | Listener] = [*self.participants, *listeners]
            await set_up(
                link,
                names,
                len(self.nodes),
                ack_wait_seconds,
                events_bytes,
                client_bounds=client_bounds,
                allowed=[*Loss],
                pairs=self.pairs.count,
            )
        finally:
            await link.close()


@contextmanager
def platform(
    folder: Path,
    form: Form = "plain",
    *,
    participants: tuple[str, ...] = PARTICIPANTS,
    nodes: Literal[1, 3] = 1,
    sync_interval: str = "2m",
    store_bytes: int = 0,
    rights: Callable[[Rights], Rights] = lambda rights: rights,
    change: Callable[[Logins], Logins] = lambda logins: logins,
    pairs: int = 1,
) -> Iterator[Platform]:
    """Start a server, or a cluster of three, and end it after the block.

    Args:
        folder: where its files go.
        form: `plain`, or `accounts`, `jwt` or `pairs` as in production.
        participants: whose accounts and consumers there shall be.
        nodes: 3 for a cluster.
        sync_interval: the server's default by default; a kill -9 loses nothing with it, a power failure would.
        store_bytes: how much each server's streams may take; most of the disk when 0.
        rights: changes the accounts, for tests of tests.
        change: changes how users log in, such as by TLS.
        pairs: over how many pairs of streams sagas are spread, in forms that do not say it.
    """
    pairs = PAIRS if form == "pairs" else pairs
    given = rights(Rights(participants, {CLIENT: [EVERYTHING]}, pairs=pairs))
    logins = change(_logins(given, form, folder))
    places: list[ClusterSeat | None] = [None] if nodes == 1 else list(seats(nodes))
    servers = [
        Server(
            folder / f"nats-{number}",
            seat=seat,
            sync_interval=sync_interval,
            store_bytes=store_bytes,
            accounts=logins.config,
            environment=dict(logins.server),
        )
        for number, seat in enumerate(places, 1)
    ]
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.wait_ready()
        yield Platform(servers, form, participants, logins, Pairs(pairs))
    finally:
        for server in servers:
            server.kill()


def _logins(rights: Rights, form: Form, folder: Path) -> Logins:
    match form:
        case "plain":
            return NOBODY
        case "accounts" | "pairs":
            return by_password(rights)
        case "jwt":
            return by_creds(rights, folder / "creds")


async def until(condition: Callable[[], object], *, seconds: float = 120.0, what: str = "the condition") -> None:
    """Wait until a condition holds, asked again every few milliseconds, and fail with words when it does not.

    Args:
        condition: may be asynchronous.
        seconds: how long it may take.
        what: is waited for.
    """
    try:
        async with asyncio.timeout(seconds):
            while not (await found if isawaitable(found := condition()) else found):
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not come to be within {seconds:g} s") from None

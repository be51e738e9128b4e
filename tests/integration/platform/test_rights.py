"""What a participant or a client with bad intentions can do to sagas through the server: nothing.

Every attack runs twice. Against the accounts of production it must store nothing in SAGA and change nothing there. And
against a server that is weakened in one way it must succeed, so that no attack is harmless only because it is clumsy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from antiphon.contracts import headers, identity, subjects
from antiphon.contracts.errors import Conflict
from antiphon.contracts.topology import EVENTS, SAGA
from antiphon.deploy.admin.rights import PLATFORM, Account, Rights
from antiphon.link import Link, Rejected, StoredMessage
from antiphon.link.setup import api
from tests.support.server import Platform, platform, until

VICTIM = identity.SagaKey.of("order", "victim")
TARGET = subjects.end_subject(VICTIM)
COMMAND_OF_BILLING = subjects.command_subject(VICTIM, "billing", "charge_customer", "do", 1)

OWN_START = subjects.start_subject(identity.SagaKey.of("order", "mine"))
OWN_EVENT = subjects.event_subject(VICTIM.path, "inventory", "inventory-reserved", "reserve_inventory", 1)
OWN_COMMANDS = [subjects.command_subject(VICTIM, "inventory", "reserve_inventory", "do", attempt) for attempt in (1, 2)]


@dataclass(frozen=True)
class Scene:
    """A platform with two commands for inventory, and an attacker who is logged in."""

    up: Platform
    coordinator: Link
    attacker: Link

    async def settle(self) -> None:
        """Wait until the server has done all that was asked of it before."""
        await self.attacker.nc.flush()
        # Two turns through both streams: the answers to the attack are stored by then, if they are stored at all.
        for turn in ("first", "second"):
            await self.coordinator.store(f"parked.canary-{turn}.coordinator", b"")
            await self.coordinator.store(f"saga.0.order.canary.c.rec.{turn}", b"")
        await self.attacker.nc.flush()

    async def entries(self) -> list[StoredMessage]:
        """All of SAGA except the canaries."""
        stored = await self.coordinator.read_all(SAGA, ["saga.>"])
        return [message for message in stored if ".canary." not in message.subject]

    async def sequences(self, stream: str) -> tuple[int, int]:
        """How many messages a stream has and had."""
        state = (await api(self.coordinator, f"STREAM.INFO.{stream}"))["state"]
        return state["messages"], state["last_seq"]


@dataclass(frozen=True)
class Attack:
    """Something an attacker sends, and the weakness it needs to succeed."""

    user: str
    send: Callable[[Link], Awaitable[None]]
    needs: Callable[[Rights], Rights]
    asks_a_coordinator: bool = False


def one_account(rights: Rights) -> Rights:
    """Everybody lives in the platform's account, with the same rights to publish and subscribe as before."""
    return OneAccount(rights.participants, rights.clients)


class OneAccount(Rights):
    """The weakness that rights cannot see reply subjects."""

    def accounts(self) -> list[Account]:
        apart = super().accounts()
        return [Account(PLATFORM, tuple(user for account in apart for user in account.users))]


def may_publish(*also: str) -> Callable[[Rights], Rights]:
    """Everybody lives in one account and may publish these subjects as well."""

    class Generous(OneAccount):
        def accounts(self) -> list[Account]:
            (platform_account,) = super().accounts()
            users = tuple(replace(user, publish=(*user.publish, *also)) for user in platform_account.users)
            return [Account(PLATFORM, users)]

    return lambda rights: Generous(rights.participants, rights.clients)


def publish(
    subject: str, *, data: bytes = b"{}", lines: str = "", reply: str = ""
) -> Callable[[Link], Awaitable[None]]:
    async def send(link: Link) -> None:
        link.send(subject, data, lines, reply)

    return send


async def ack_and_ask_for_the_next(link: Link) -> None:
    """An ack may ask for the next message (`+NXT`), and says in its reply subject where that shall go."""
    inbox, replies = link.new_inbox(), list[str]()
    await link.subscribe(inbox, lambda subject, reply, data, headers: replies.append(reply))
    link.send(NEXT, b'{"batch":1}', reply=inbox)
    await until(lambda: replies, what="the first command")
    link.send(replies[0], b"+NXT", reply=TARGET)


NEXT = "$JS.API.CONSUMER.MSG.NEXT.SAGA.inventory"

ATTACKS = {
    "a participant writes the outcome": Attack("inventory", publish(TARGET), may_publish("saga.>")),
    "a client writes the outcome": Attack("client", publish(TARGET), may_publish("saga.>")),
    "a participant writes another's command": Attack("inventory", publish(COMMAND_OF_BILLING), may_publish("saga.>")),
    "a participant has the receipt of its event stored": Attack(
        "inventory", publish(OWN_EVENT, reply=TARGET), one_account
    ),
    "a participant has the receipt of a parked message stored": Attack(
        "inventory", publish("parked.undecodable.inventory.coordinator", reply=TARGET), one_account
    ),
    "a participant has the receipt of its registration stored": Attack(
        "inventory", publish(subjects.registration_subject("inventory", "x"), reply=TARGET), one_account
    ),
    "a client has the receipt of its start stored": Attack("client", publish(OWN_START, reply=TARGET), one_account),
    "a participant has its next command delivered into a journal": Attack(
        "inventory", publish(NEXT, data=b'{"batch":1}', reply=TARGET), one_account
    ),
    "a participant acks and has its next command delivered into a journal": Attack(
        "inventory", ack_and_ask_for_the_next, one_account
    ),
    "a participant has the lack of commands reported into a journal": Attack(
        "inventory", publish(f"{NEXT}-undo", data=b'{"batch":1,"no_wait":true}', reply=TARGET), one_account
    ),
    "a client has its own start copied into a journal": Attack(
        "client",
        publish(f"$JS.API.DIRECT.GET.EVENTS.{OWN_START}", data=b"", reply=COMMAND_OF_BILLING),
        may_publish(f"$JS.API.DIRECT.GET.EVENTS.{subjects.CLIENT_STARTS_FILTER}"),
    ),
    "a client has an outcome copied into a journal": Attack(
        "client", publish(f"$JS.API.DIRECT.GET.SAGA.{TARGET}", data=b"", reply=TARGET), one_account
    ),
    "a client has a coordinator answer into a journal": Attack(
        "client", publish(subjects.status_subject(VICTIM), reply=TARGET), one_account, asks_a_coordinator=True
    ),
    "a client has a coordinator compare into a journal": Attack(
        "client", publish(subjects.same_subject(VICTIM), reply=TARGET), one_account, asks_a_coordinator=True
    ),
    "a participant has its message traced into a journal": Attack(
        "inventory", publish(OWN_EVENT, lines=f"Nats-Trace-Dest: {TARGET}\r\n"), may_publish("saga.>")
    ),
}


@asynccontextmanager
async def scene(folder: Path, user: str, rights: Callable[[Rights], Rights] | None = None) -> AsyncIterator[Scene]:
    with platform(folder, "accounts", rights=rights or (lambda given: given)) as up:
        await up.set_up()
        coordinator, attacker = await up.connect("coordinator"), await up.connect(user)
        for command in OWN_COMMANDS:
            await coordinator.store(command, b'{"an":"order"}')
        try:
            yield Scene(up, coordinator, attacker)
        finally:
            await attacker.close()
            await coordinator.close()


async def attempt(attack: Attack, stage: Scene) -> None:
    if attack.asks_a_coordinator:
        for asked in (subjects.STATUS_FILTER, subjects.SAME_FILTER):
            await stage.coordinator.subscribe(
                asked, lambda subject, reply, data, headers: stage.coordinator.send(reply, b"running")
            )
        await stage.coordinator.nc.flush()
    if attack.user == "client":
        stage.attacker.send(OWN_START, b"{}")
    await attack.send(stage.attacker)
    await stage.settle()


UNTOUCHED = (len(OWN_COMMANDS) + 2, len(OWN_COMMANDS) + 2)
"""What SAGA has, and had in all: the commands and two canaries."""


@pytest.mark.parametrize("name", ATTACKS)
async def test_nothing_is_stored_in_a_journal_when(name: str, tmp_path: Path) -> None:
    attack = ATTACKS[name]
    async with scene(tmp_path, attack.user) as stage:
        await attempt(attack, stage)
        assert [message.subject for message in await stage.entries()] == OWN_COMMANDS
        assert await stage.sequences(SAGA) == UNTOUCHED


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_weakened_server_stores_something_when(name: str, tmp_path: Path) -> None:
    attack = ATTACKS[name]
    async with scene(tmp_path, attack.user, attack.needs) as stage:
        await attempt(attack, stage)
        # A delivered command is stored where it was before, under its own subject, so the subjects do not show it.
        async with asyncio.timeout(120):
            while await stage.sequences(SAGA) <= UNTOUCHED:
                await asyncio.sleep(0.02)


# --- headers ----------------------------------------------------------------------------------------------------------

FOREIGN_EVENT = subjects.event_subject(VICTIM.path, "billing", "payment-charged", "charge_customer", 1)

HEADERS = {
    "Nats-Schedule": "@at 2020-01-01T00:00:00Z\r\nNats-Schedule-Target: " + FOREIGN_EVENT,
    "Nats-Schedule-Next": f"purge\r\nNats-Scheduler: {FOREIGN_EVENT}",
    "Nats-Rollup": "all",
    "Nats-TTL": "1",
    "Nats-Incr": "+1",
    "Nats-Batch-Id": "b\r\nNats-Batch-Sequence: 1\r\nNats-Batch-Commit: 1",
    "Nats-Stream-Source": "SAGA 1 > >",
}
HARMLESS_BEFORE = {"Nats-Stream-Source": (2, 15)}
"""Servers before this one store the header as any other that means nothing to them."""


@pytest.mark.parametrize("header", HEADERS)
async def test_no_header_gives_an_event_power_over_other_messages(header: str, tmp_path: Path) -> None:
    async with scene(tmp_path, "inventory") as stage:
        billing = await stage.up.connect("billing")
        await billing.store(FOREIGN_EVENT, b"{}")
        await billing.close()
        found = stage.attacker.nc.connected_server_version
        if (found.major, found.minor) < HARMLESS_BEFORE.get(header, (0, 0)):
            await stage.attacker.store(OWN_EVENT, b"{}", f"{header}: {HEADERS[header]}\r\n")
            assert await stage.sequences(EVENTS) == (2, 2)
            return
        with pytest.raises(Rejected):
            await stage.attacker.store(OWN_EVENT, b"{}", f"{header}: {HEADERS[header]}\r\n")
        assert await stage.sequences(EVENTS) == (1, 1)


async def test_a_roll_up_would_erase_events_if_the_stream_allowed_it(tmp_path: Path) -> None:
    async with scene(tmp_path, "inventory") as stage:
        await set_on_events(stage.up, "allow_rollup_hdrs")
        billing = await stage.up.connect("billing")
        await billing.store(FOREIGN_EVENT, b"{}")
        await stage.attacker.store(OWN_EVENT, b"{}", "Nats-Rollup: all\r\n")
        await billing.close()
        assert await stage.sequences(EVENTS) == (1, 2)


async def test_a_message_id_used_first_keeps_no_event_of_another_out(tmp_path: Path) -> None:
    async with scene(tmp_path, "inventory") as stage:
        billing = await stage.up.connect("billing")
        for guess in (FOREIGN_EVENT, "1", TARGET):
            await stage.attacker.store(f"{OWN_EVENT}{len(guess)}", b"{}", f"Nats-Msg-Id: {guess}\r\n")
        await billing.store(FOREIGN_EVENT, b"{}")
        await billing.close()
        assert len(await stage.coordinator.read_all(EVENTS, [FOREIGN_EVENT])) == 1


@pytest.mark.parametrize(
    "header",
    ["Nats-Expected-Last-Sequence: 7", "Nats-Expected-Last-Subject-Sequence: 7", "Nats-Expected-Last-Msg-Id: x"],
)
async def test_an_expectation_in_an_event_hinders_nobody_but_its_sender(header: str, tmp_path: Path) -> None:
    async with scene(tmp_path, "inventory") as stage:
        with pytest.raises((Conflict, Rejected)):
            await stage.attacker.store(OWN_EVENT, b"{}", f"{header}\r\n")
        await stage.coordinator.store(TARGET, b"{}", headers.guard_header(VICTIM, len(OWN_COMMANDS)))


async def set_on_events(up: Platform, setting: str) -> None:
    """Switch something on that EVENTS must not have."""
    link = await up.connect("administrator")
    config = (await api(link, f"STREAM.INFO.{EVENTS}"))["config"]
    answer = await api(link, f"STREAM.UPDATE.{EVENTS}", {**config, setting: True})
    assert "error" not in answer
    await link.close()


# --- what is not theirs -----------------------------------------------------------------------------------------------

FOREIGN = {
    "inventory": [
        FOREIGN_EVENT,
        subjects.start_subject(VICTIM),
        subjects.cancel_subject(VICTIM),
        subjects.signal_subject(VICTIM, "fraud_cleared"),
        subjects.verb_subject(VICTIM, "operator", "cancel", "k1"),
        "$JS.API.CONSUMER.PAUSE.SAGA.billing",
        "parked.undecodable.billing",
        "parked.undecodable.billing.inventory",
        "parked.forged.coordinator.inventory",
        "parked.withdrawn.coordinator.EVENTS-1",
        subjects.parked_saga_subject(VICTIM),
        subjects.registration_subject("billing", "x"),
        subjects.registration_subject("coordinator", "x"),
        "$JS.API.DIRECT.GET.KV_ANTIPHON_PARTICIPANTS",
        "$JS.API.CONSUMER.MSG.NEXT.SAGA.billing",
        "$JS.API.CONSUMER.MSG.NEXT.EVENTS.billing-on",
        "$JS.ACK.EVENTS.billing-on.1.1.1.1.0",
        "$JS.API.CONSUMER.MSG.NEXT.EVENTS.coordinator",
        "$JS.ACK.SAGA.billing.1.1.1.1.0",
        "$JS.ACK.EVENTS.coordinator.1.1.1.1.0",
        "$JS.API.DIRECT.GET.SAGA",
        "$JS.API.DIRECT.GET.EVENTS",
        f"$JS.API.DIRECT.GET.SAGA.{TARGET}",
        "$JS.API.STREAM.PURGE.SAGA",
        "$JS.API.STREAM.MSG.DELETE.SAGA",
        "$JS.API.CONSUMER.DELETE.SAGA.inventory",
        "$JS.API.CONSUMER.CREATE.SAGA.mine",
        subjects.status_subject(VICTIM),
        "_INBOX_coordinator.x",
        "_INBOX_inventory.x",
    ],
    "client": [
        OWN_EVENT,
        subjects.verb_subject(VICTIM, "operator", "cancel", "k1"),
        "parked.undecodable.client",
        subjects.registration_subject("inventory", "x"),
        "$JS.API.CONSUMER.MSG.NEXT.SAGA.inventory",
        "$JS.API.DIRECT.GET.SAGA",
        "$JS.API.DIRECT.GET.EVENTS",
        f"$JS.API.DIRECT.GET.SAGA.{OWN_COMMANDS[0]}",
        f"$JS.API.DIRECT.GET.EVENTS.{OWN_EVENT}",
        f"$JS.API.DIRECT.GET.EVENTS.{OWN_START}",
        f"$JS.API.DIRECT.GET.EVENTS.{subjects.CLIENT_STARTS_FILTER}",
        "$JS.API.STREAM.DELETE.SAGA",
        "_INBOX_client.x",
    ],
    "operator": [
        OWN_EVENT,
        TARGET,
        OWN_COMMANDS[0],
        subjects.verb_subject(VICTIM, "somebody", "cancel", "k1"),
        subjects.state_subject(identity.SagaKey.of(identity.SAGA_TYPE, "order")),
        subjects.announce_subject("order"),
        subjects.registration_subject("inventory", "x"),
        "$JS.API.CONSUMER.PAUSE.SAGA.inventory",
        "$JS.API.STREAM.PURGE.SAGA",
        "$JS.API.STREAM.INFO.SAGA",
    ],
    "coordinator": [
        OWN_EVENT,
        "parked.forged.inventory",
        "parked.forged.inventory.client",
        subjects.registration_subject("inventory", "x"),
        subjects.verb_subject(VICTIM, "operator", "cancel", "k1"),
        "$JS.API.CONSUMER.DELETE.EVENTS.sweeper",
        "$JS.API.STREAM.PURGE.SAGA",
        "$JS.API.STREAM.DELETE.SAGA",
        "$JS.API.STREAM.MSG.DELETE.ADVISORIES",
        "$JS.API.CONSUMER.MSG.NEXT.SAGA.inventory",
    ],
}


@pytest.mark.parametrize(("user", "subject"), [(user, subject) for user in FOREIGN for subject in FOREIGN[user]])
async def test_a_user_may_not_publish_to(user: str, subject: str, tmp_path: Path) -> None:
    async with scene(tmp_path, user) as stage:
        with capture_logs() as logs:
            stage.attacker.send(subject, b"{}", reply=stage.attacker.new_inbox())
            await until(lambda: stage.attacker.failure.done() or logs, what="the server's refusal")
        said = str(stage.attacker.failure.result() if stage.attacker.failure.done() else logs[0]["reply"])
        assert subject.lower() in said.lower()  # nats-py hands errors on in lower case


@pytest.mark.parametrize("user", ["inventory", "client", "operator"])
@pytest.mark.parametrize(
    "subject", [">", "evt.>", "saga.>", "$JS.>", "_INBOX_coordinator.>", "antiphon.status.>", "_R_.>"]
)
async def test_a_user_may_not_listen_on(user: str, subject: str, tmp_path: Path) -> None:
    async with scene(tmp_path, user) as stage:
        await stage.attacker.subscribe(subject, lambda *_: None)
        await until(stage.attacker.failure.done, what="the server's refusal")
        assert subject.lower() in str(stage.attacker.failure.result()).lower()  # nats-py hands errors on in lower case


@pytest.mark.parametrize("body", ['{"multi_last":["saga.>"],"batch":10}', '{"last_by_subj":"saga.>"}', '{"seq":1}'])
async def test_a_client_that_reads_an_outcome_cannot_ask_for_more_in_the_body(body: str, tmp_path: Path) -> None:
    async with scene(tmp_path, "client") as stage:
        answer = await stage.attacker.nc.request(f"$JS.API.DIRECT.GET.SAGA.{TARGET}", body.encode(), timeout=120)
        assert (answer.headers or {}).get("Nats-Subject") is None


async def test_a_client_hears_of_outcomes_and_of_nothing_else(tmp_path: Path) -> None:
    async with scene(tmp_path, "client") as stage:
        heard = list[str]()
        await stage.attacker.subscribe(subjects.ENDS_FILTER, lambda subject, *_: heard.append(subject))
        await stage.attacker.nc.flush()
        await stage.coordinator.store(
            subjects.command_subject(VICTIM, "inventory", "reserve_inventory", "do", 3), b"{}"
        )
        await stage.coordinator.store(TARGET, b"{}")
        await until(lambda: heard, what="the outcome")
        assert heard == [TARGET]

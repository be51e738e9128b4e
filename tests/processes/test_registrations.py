"""What runs says so: on a real server, in both forms, by processes that are ended and killed, and in any language."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
import structlog.testing

from antiphon.contracts.registration import Capabilities, Registration, claims
from antiphon.contracts.subjects import REGISTRATIONS_BUCKET, REGISTRATIONS_FILTER, registration_subject
from antiphon.contracts.topology import REGISTRATIONS
from antiphon.deploy.cli.flows import look
from antiphon.flow.running import read_running
from antiphon.link import Link, Rejected
from antiphon.link.registration import VERSION_VARIABLE, registered
from antiphon.link.setup import api
from antiphon.order.inventory import inventory
from antiphon.participants.capabilities import capabilities_of
from tests.support.server import FORMS, Form, Platform, platform, until

ROOT = Path(__file__).parents[2]
SECONDS = 120.0
BILLING = Capabilities(name="billing")
PAGE = (ROOT / "contracts" / "README.md").read_text().partition("## Saying what one does")[2]
BY_HAND: dict[str, Any] = json.loads(PAGE.partition("```json")[2].partition("```")[0])
"""What a participant in another language is told to put there."""


async def registrations(link: Link) -> list[Registration]:
    stored = [(each.subject, each.data) async for each in link.scan(REGISTRATIONS.name, REGISTRATIONS_FILTER)]
    return [*read_running(stored).registrations]


async def names(link: Link) -> list[str]:
    return [each.name for each in await registrations(link)]


async def come_to_be(link: Link, *wanted: str) -> None:
    """Wait until just these have said that they are there."""
    found: list[str] = []
    try:
        async with asyncio.timeout(SECONDS):
            while (found := await names(link)) != [*wanted]:
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{found} are registered, and not {wanted}") from None


async def expire_after(link: Link, seconds: float) -> None:
    """Have registrations expire sooner than they do as they were set up."""
    config = (await api(link, f"STREAM.INFO.{REGISTRATIONS.name}"))["config"]
    assert config["max_age"] == 90e9
    sooner = {**config, "max_age": int(seconds * 1e9), "duplicate_window": int(seconds * 1e9)}
    answer = await api(link, f"STREAM.UPDATE.{REGISTRATIONS.name}", sooner)
    assert "error" not in answer, answer


@asynccontextmanager
async def process(
    up: Platform, user: str, *command: str, **variables: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """One process of the platform, ended with the block."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "ANTIPHON_LOG": "json", **up.environment(user), **variables}
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", *command, env=environment)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def antiphon(up: Platform, *arguments: str) -> tuple[int, str]:
    """The command line as an operator has it: exit code, and what it prints."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "antiphon.deploy",
        *arguments,
        env={**os.environ, **up.environment("operator")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    printed, _ = await child.communicate()
    return await child.wait(), printed.decode()


def participant(name: str) -> tuple[str, ...]:
    return ("antiphon.deploy", "participant", f"antiphon.order.{name}:{name}", "--database", "memory:")


COORDINATOR = ("antiphon.deploy", "coordinator", "--app", "antiphon.order.saga:order")
ORDER = tuple(f"--app=antiphon.order.{name}" for name in ("saga", "inventory", "billing", "shipping"))


@pytest.mark.parametrize("form", FORMS)
async def test_what_runs_is_known_and_compared_and_says_when_it_goes(form: Form, tmp_path: Path) -> None:
    with platform(tmp_path, form) as up:
        await up.set_up()
        link = await up.connect("administrator")
        async with (
            process(up, "coordinator", *COORDINATOR) as coordinator,
            process(up, "inventory", *participant("inventory"), **{VERSION_VARIABLE: "7 of Tuesday"}) as child,
        ):
            await come_to_be(link, "coordinator", "inventory")
            found = await registrations(link)
            assert found[1].version == "7 of Tuesday"
            assert found[1].library.startswith("antiphon ")
            assert [saga.name for saga in found[0].sagas] == ["order"]
            (code, printed), (_, drawn), (_, told) = await asyncio.gather(
                antiphon(up, "flow", "check", "--server", up.servers, *ORDER, "--json"),
                antiphon(up, "flow", "--server", up.servers),
                antiphon(up, "flow", "who", "inventory.reserve", "--server", up.servers),
            )
            assert code == 1
            assert [(each["mistake"], each["about"]) for each in json.loads(printed)] == [
                ("not running", "billing"),
                ("not running", "shipping"),
            ]
            assert "inventory.reserve() ×1" in drawn
            assert "handled by      inventory.reserve() ×1" in told
            child.terminate()
            coordinator.terminate()
            assert [await child.wait(), await coordinator.wait()] == [0, 0]
            assert await names(link) == []
        await link.close()


async def test_a_process_that_is_killed_is_there_until_its_registration_expires(tmp_path: Path) -> None:
    with platform(tmp_path) as up:
        await up.set_up()
        link = await up.connect("administrator")
        await expire_after(link, 1.5)
        async with process(up, "inventory", "tests.integration.platform.registering", up.servers, "0.2") as child:
            await come_to_be(link, "inventory")
            first = await link.get_latest(REGISTRATIONS.name, REGISTRATIONS_FILTER)
            latest = first
            async with asyncio.timeout(SECONDS):  # it outlives the expiry, because it is renewed
                while first and latest and latest.stored_ns - first.stored_ns < 2e9:
                    await asyncio.sleep(0.05)
                    latest = await link.get_latest(REGISTRATIONS.name, REGISTRATIONS_FILTER)
            assert latest is not None
            child.send_signal(signal.SIGKILL)
            await child.wait()
            assert await names(link) == ["inventory"]
            await come_to_be(link)
        await link.close()


async def test_a_participant_in_another_language_registers_with_a_key_value_client(tmp_path: Path) -> None:
    with platform(tmp_path) as up:
        await up.set_up()
        nc = await nats.connect(up.servers)
        bucket = await nc.jetstream().key_value(REGISTRATIONS_BUCKET)
        await bucket.put("billing.js-1", json.dumps(BY_HAND).encode())
        await bucket.put("billing.js-2", b"hello")
        await bucket.put("billing.js-3", json.dumps({**BY_HAND, "instance": "js-3"}).encode())
        await bucket.delete("billing.js-3")
        running, _ = await look(up.servers)
        (billing,) = running.registrations
        assert (billing.instance, billing.version, billing.library) == ("js-1", "2.3.1", "billing.js")
        assert len([*billing.entries()]) == 3
        assert claims(billing) == []
        assert [subject for subject, _ in running.unreadable] == [registration_subject("billing", "js-2")]
        link = await up.connect("inventory")
        async with registered(link, capabilities_of(inventory)):
            await come_to_be(link, "billing", "inventory")
            keys = await bucket.keys()
            assert sum(key.startswith("inventory.") for key in keys) == 1
        await nc.close()
        await link.close()


async def test_nobody_can_say_something_for_another_or_erase_what_he_says(tmp_path: Path) -> None:
    with platform(tmp_path, "accounts") as up:
        await up.set_up()
        operator, billing, thief = [await up.connect(user) for user in ("operator", "billing", "inventory")]
        with structlog.testing.capture_logs() as logs:
            async with registered(billing, BILLING), registered(thief, BILLING):
                await come_to_be(operator, "billing")
                with pytest.raises(Rejected):  # the bucket takes no roll-ups, which would erase the others' keys
                    await thief.store(registration_subject("inventory", "x"), b"{}", "Nats-Rollup: all\r\n")
                await until(lambda: logs, what="the line that says that it failed")
                assert not thief.failure.done(), "a registration that fails stops nobody"
                assert await names(operator) == ["billing"]
        assert logs[0]["event"] == "registration.failed"
        assert "does not let inventory use $KV.ANTIPHON_PARTICIPANTS.billing." in logs[0]["reason"]
        assert "antiphon setup" in logs[0]["remedy"]
        for link in (operator, billing, thief):
            await link.close()


async def test_without_the_bucket_a_participant_works_and_logs_why_it_is_not_known(tmp_path: Path) -> None:
    with platform(tmp_path) as up:
        await up.set_up()
        link = await up.connect("administrator")
        await api(link, f"STREAM.DELETE.{REGISTRATIONS.name}")
        with structlog.testing.capture_logs() as logs:
            async with registered(link, BILLING):
                await until(lambda: logs, what="the line that says that it failed")
        assert not link.failure.done()
        code, printed = await antiphon(up, "flow", "check", "--server", up.servers)
        assert (code, printed.count("\n")) == (1, 1)
        assert "antiphon setup" in printed
        await link.close()


async def test_more_than_a_registration_may_have_is_refused_by_the_server(tmp_path: Path) -> None:
    with platform(tmp_path) as up:
        await up.set_up()
        link = await up.connect("billing")
        await link.store(registration_subject("billing", "x"), b" " * 262_144)
        with pytest.raises(Rejected):
            await link.store(registration_subject("billing", "y"), b" " * 262_145)
        await link.close()

"""The pages on which a process says whether it lives and is ready."""

from __future__ import annotations

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from types import SimpleNamespace
from typing import cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from antiphon.contracts.differences import Difference
from antiphon.contracts.errors import PlatformError
from antiphon.deploy.local.server import free_port
from antiphon.link import Link
from antiphon.link.fitness import Fitness
from antiphon.link.probes import served


def address() -> str:
    return f"127.0.0.1:{free_port()}"


def fetch(where: str, page: str, method: str = "GET") -> tuple[int, str]:
    """The status and the text of a page."""
    try:
        with urlopen(Request(f"http://{where}/{page}", method=method), timeout=120) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def ask(where: str, page: str) -> tuple[int, str]:
    """The same while the loop turns."""
    return await asyncio.to_thread(fetch, where, page)


def of_a_process(*, is_connected: bool = True, differences: tuple[Difference, ...] = ()) -> tuple[Link, Fitness]:
    return (
        cast("Link", SimpleNamespace(is_connected=is_connected)),
        cast("Fitness", SimpleNamespace(differences=differences)),
    )


async def test_a_process_is_ready_from_its_start_until_it_is_told_to_end() -> None:
    where = address()
    with served(where) as probes:
        assert await ask(where, "readyz") == (HTTPStatus.SERVICE_UNAVAILABLE, "it starts\n")
        probes.ready(*of_a_process())
        assert await ask(where, "readyz") == (HTTPStatus.OK, "ok\n")
        probes.ending()
        assert await ask(where, "readyz") == (HTTPStatus.SERVICE_UNAVAILABLE, "it was told to end\n")
    with pytest.raises(OSError, match="refused"):
        await ask(where, "livez")


async def test_a_process_is_not_ready_without_a_connection_nor_where_the_server_is_not_as_it_must_be() -> None:
    where = address()
    grave = Difference("stream SAGA is not there", is_grave=True, remedy="antiphon setup")
    slight = Difference("SAGA has another limit", is_grave=False, remedy="antiphon setup")
    with served(where) as probes:
        probes.ready(*of_a_process(is_connected=False, differences=(grave, slight)))
        assert await ask(where, "readyz") == (
            HTTPStatus.SERVICE_UNAVAILABLE,
            "it has no connection to a NATS server\nstream SAGA is not there; antiphon setup\n",
        )
        probes.ready(*of_a_process(differences=(slight,)))
        assert await ask(where, "readyz") == (HTTPStatus.OK, "ok\n")


async def test_a_process_whose_loop_stands_still_does_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.link.probes.TURN_SECONDS", 0.2)
    where = address()
    with served(where):
        assert await ask(where, "livez") == (HTTPStatus.OK, "ok\n")
        with ThreadPoolExecutor() as other:
            status, said = other.submit(fetch, where, "livez").result(120)  # the loop stands, as where a handler blocks
    assert status == HTTPStatus.SERVICE_UNAVAILABLE
    assert said == "the event loop has not turned for 0.2 s: code that blocks stands in it\n"


async def test_it_tells_its_versions_and_which_pages_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_PROGRAM_VERSION", "shop 7\x1b[2J")
    where = address()
    with served(where):
        status, said = await ask(where, "version")
        assert status == HTTPStatus.OK
        assert {*json.loads(said)} == {"antiphon", "wire", "python", "program"}
        assert "\x1b" not in said
        assert await ask(where, "elsewhere") == (HTTPStatus.NOT_FOUND, "/livez /readyz /version /metrics\n")
        assert await ask(where, "metrics") == (
            HTTPStatus.NOT_IMPLEMENTED,
            "this process has no metrics of its own\n",
        )
        assert await asyncio.to_thread(fetch, where, "livez?verbose", "HEAD") == (HTTPStatus.OK, "")
        status, _ = await asyncio.to_thread(fetch, where, "livez", "POST")
        assert status == HTTPStatus.NOT_IMPLEMENTED


async def test_nobody_listens_where_nobody_asked_for_it() -> None:
    with served("") as probes:
        assert not probes.is_asked_for


async def test_an_address_that_is_taken_is_a_sentence() -> None:
    where = address()
    with served(where), pytest.raises(PlatformError, match=r"Give a free host:port with --http"), served(where):
        pass


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nowhere", "'nowhere' is no address. Give a host and a port, such as 127.0.0.1:9464"),
        ("127.0.0.1:port", "Give a host and a port"),
        ("127.0.0.1:99999999", "Give a host and a port"),
        (":29109", "names no host. Give 127.0.0.1:29109 for this machine alone, or 0.0.0.0:29109"),
    ],
)
async def test_what_is_no_address_is_a_sentence(where: str, said: str) -> None:
    with pytest.raises(PlatformError, match=re.escape(said)), served(where):
        pass

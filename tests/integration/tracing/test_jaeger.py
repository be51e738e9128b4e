"""The same against a real Jaeger, where ANTIPHON_JAEGER_URL names one: it has every span, and warns of nothing.

`OTEL_EXPORTER_OTLP_ENDPOINT` says where it takes traces; by default port 4318 of the same host.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from antiphon.contracts import SagaKey, subjects
from antiphon.tracing.export.reading import read_projection
from antiphon.tracing.projection.links import VARIABLE
from tests.integration.tracing.replay import play_back
from tests.integration.tracing.voyage import MealAsked, Voyage
from tests.processes.test_exporter import exporter, with_backend
from tests.support.traced import until_nothing_is_pending

JAEGER = os.environ.get(VARIABLE, "")
WARNINGS = "@jaeger@warnings"
"""The attribute in which Jaeger's API says what it finds wrong with a span."""


@pytest.mark.skipif(not JAEGER, reason=f"{VARIABLE} names no Jaeger")
async def test_jaeger_has_every_span_and_warns_of_nothing(tmp_path: Path) -> None:
    # Ids of this run only: a backend keeps what earlier runs sent, and a trace's id follows from its saga's.
    keys = [SagaKey.of("meal", f"j{time.time_ns()}-{number}") for number in range(5)]
    voyage = Voyage(4, trouble=0.3)
    for key in keys:
        voyage.put(subjects.start_subject(key), "client", MealAsked.__contract__.type, MealAsked(guest=key.id))
    voyage.live()
    async with with_backend(tmp_path) as (up, link, _, environment):
        await play_back(voyage, link)
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint()
        with exporter(up, environment, tmp_path):
            await until_nothing_is_pending(link)
        for projection in [await read_projection(link, key) for key in keys]:
            wanted = {span.span_id for span in projection.spans}
            found = await stored(projection.spans[0].trace_id, len(wanted))
            assert sorted(ident(span["spanId"]) for span in found) == sorted(wanted), "missing, or twice"
            assert [span["name"] for span in found if WARNINGS in {a["key"] for a in span.get("attributes", ())}] == []


def endpoint() -> str:
    """Where Jaeger takes traces."""
    return os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or f"http://{urlsplit(JAEGER).hostname}:4318"


async def stored(trace_id: str, count: int) -> list[dict[str, Any]]:
    """The spans of a trace, once there are as many as there should be, or after two minutes those there are."""
    end = time.monotonic() + 120
    while True:
        found = list(await asyncio.to_thread(spans_of, trace_id))
        if len(found) >= count or time.monotonic() > end:
            return found
        await asyncio.sleep(0.2)


def spans_of(trace_id: str) -> Iterator[dict[str, Any]]:
    """Ask `/api/v3`; a trace that is not there yet is a 404."""
    try:
        with urllib.request.urlopen(f"{JAEGER.rstrip('/')}/api/v3/traces/{trace_id}", timeout=120) as answer:
            told = json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return
        raise
    for resource in told["result"]["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            yield from scope["spans"]


def ident(text: str) -> str:
    """A span id in hexadecimal, in which OTLP's JSON has it; plain protobuf JSON has it in base64."""
    return text if len(text) == 16 else base64.b64decode(text).hex()

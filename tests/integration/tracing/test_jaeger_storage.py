"""`antiphon jaeger-storage` as Jaeger uses it: a plain gRPC client, a real server with accounts, sagas of processes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from antiphon.contracts import SagaKey, subjects
from antiphon.coordinator.client.client import Antiphon
from antiphon.link import Link
from antiphon.link.setup import api as api_of
from antiphon.order.data import load_orders
from antiphon.order.saga import order
from antiphon.tracing.export import reading as reading_module
from antiphon.tracing.export.reading import read_projection
from antiphon.tracing.jaeger import sagas as sagas_module
from antiphon.tracing.jaeger import serve as serve_module
from antiphon.tracing.jaeger import storage_pb2 as api
from antiphon.tracing.jaeger.query import Query
from antiphon.tracing.jaeger.sagas import Found, Sagas, calls_in
from antiphon.tracing.projection.ids import trace_id
from antiphon.tracing.projection.project import Projection
from tests.integration.tracing.replay import play_back
from tests.integration.tracing.voyage import KEY, Voyage
from tests.processes.test_exporter import troubled
from tests.support.processes import fleet, run_orders
from tests.support.receiver import expected, flat
from tests.support.server import Platform, platform, until

ANTIPHON: Final = str(Path(sys.executable).with_name("antiphon"))
ORDERS: Final = load_orders()[:12]
WAITING: Final = SagaKey.of("order", "waiting")
SECONDS_MAX: Final = 120.0


class Client:
    """Whoever asks as Jaeger does."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def ask(self, name: str, request: Message) -> Any:
        service = "DependencyReader" if name == "GetDependencies" else "TraceReader"
        answer = getattr(api, f"{name}Response")
        method: Any = self.channel.unary_unary(f"/jaeger.storage.v2.{service}/{name}", written, answer.FromString)
        return method(request, timeout=SECONDS_MAX)

    def stream(self, name: str, request: Message) -> list[TracesData]:
        method: Any = self.channel.unary_stream(
            f"/jaeger.storage.v2.TraceReader/{name}", written, TracesData.FromString
        )
        return list(method(request, timeout=SECONDS_MAX))

    def trace(self, *keys: SagaKey) -> list[TracesData]:
        query = [api.GetTraceParams(trace_id=id_of(key)) for key in keys]
        return self.stream("GetTraces", api.GetTracesRequest(query=query))

    def find(self, **query: Any) -> list[str]:
        """The ids of the sagas that are found, once it is clear that both ways of finding agree."""
        asked = api.TraceQueryParameters(**query)
        traces = self.stream("FindTraces", api.FindTracesRequest(query=asked))
        roots = [span for message in traces for span in spans_of(message) if not span.parent_span_id]
        ids = self.ask("FindTraceIDs", api.FindTraceIDsRequest(query=asked)).trace_ids
        assert [root.trace_id for root in roots] == [each.trace_id for each in ids]
        for each, root in zip(ids, roots, strict=True):
            assert each.start.ToNanoseconds() == root.start_time_unix_nano
        return [attribute(root, "saga.id") for root in roots]


def written(message: Message) -> bytes:
    return message.SerializeToString()


def id_of(key: SagaKey) -> bytes:
    return bytes.fromhex(trace_id(key))


def spans_of(message: TracesData) -> list[Span]:
    return [span for each in message.resource_spans for scope in each.scope_spans for span in scope.spans]


def attribute(span: Span, key: str) -> Any:
    return next((getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes if a.key == key), None)


def having(**attributes: str) -> list[api.KeyValue]:
    return [
        api.KeyValue(key=key.replace("_", "."), value=api.AnyValue(string_value=value))
        for key, value in attributes.items()
    ]


# --- against sagas of real processes ----------------------------------------------------------------------------------


@dataclass
class Lived:
    """A platform with ended sagas and one that runs, and what their journals say."""

    up: Platform
    found: dict[str, Projection]

    def ids(self, outcome: str) -> list[str]:
        """The newest first."""
        ended = [p for p in self.found.values() if p.outcome == outcome]
        return [p.key.id for p in sorted(ended, key=lambda p: p.spans[-1].start_ns, reverse=True)]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    folder = tmp_path_factory.mktemp("jaeger-storage")
    with platform(folder, "accounts") as up:
        asyncio.run(up.set_up())
        with fleet(up, folder) as running:
            asyncio.run(run_orders(up, running, ORDERS))
        coordinator = [ANTIPHON, "coordinator", "--app", "antiphon.order.saga:order"]
        with subprocess.Popen(coordinator, env={**os.environ, **up.environment("coordinator")}, stderr=-3) as process:
            found = asyncio.run(begin_and_read(up))
            process.terminate()
        yield Lived(up, found)


async def begin_and_read(up: Platform) -> dict[str, Projection]:
    """Start a saga that nobody works on, and read all there are."""
    async with Antiphon.connect(up.servers, name="client", credentials=up.credentials("client")) as antiphon:
        await antiphon.start(order, ORDERS[0], id=WAITING.id)
    link = await up.connect("operator")
    while not (await read_projection(link, WAITING)).open:
        await asyncio.sleep(0.02)
    keys = [WAITING, *(SagaKey.of("order", each.order_id) for each in ORDERS)]
    found = {key.id: await read_projection(link, key) for key in keys}
    await link.close()
    return found


@dataclass
class Process:
    """`antiphon jaeger-storage`."""

    process: subprocess.Popen[bytes]
    log: Path

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def port(self) -> int:
        """Where it listens, once it does."""
        return next((each["port"] for each in self.events() if each["event"] == "jaeger_storage.ready"), 0)


def launch(up: Platform, user: str, log: Path, *arguments: str) -> Process:
    environment = {**os.environ, **up.environment(user), "ANTIPHON_LOG": "json"}
    command = [ANTIPHON, "jaeger-storage", *(arguments or ("--listen", "127.0.0.1:0"))]
    with log.open("wb") as out:
        return Process(subprocess.Popen(command, env=environment, stdout=out, stderr=out), log)


@pytest.fixture(scope="module")
def client(lived: Lived, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """An operator's rights are enough."""
    running = launch(lived.up, "operator", tmp_path_factory.mktemp("process") / "log")
    try:
        asyncio.run(until(running.port, what="the storage"))
        asking = Client(running.port())
        yield asking
        asking.channel.close()
    finally:
        running.process.terminate()
        assert running.process.wait(120) == 0, running.log.read_text()


def test_every_saga_is_found_by_its_trace_id_with_the_spans_of_its_journal(client: Client, lived: Lived) -> None:
    ended = [p for p in lived.found.values() if p.outcome]
    assert {p.outcome for p in ended} == {"completed", "compensated"}
    messages = client.trace(*(p.key for p in ended))
    sent = {ident: {data} for message in messages for ident, data in flat(message)}  # type: ignore[arg-type]
    assert sent == expected(span for p in ended for span in p.spans)
    order_of_traces = [{span.trace_id for span in spans_of(message)} for message in messages]
    assert order_of_traces == [{id_of(p.key)} for p in ended]


def test_a_saga_that_runs_is_there_and_lasts_until_now(client: Client) -> None:
    ends = list[int]()
    for _ in range(2):
        (message,) = client.trace(WAITING)
        (root,) = (span for span in spans_of(message) if not span.parent_span_id)
        assert attribute(root, "saga.open") is True
        ids = {span.span_id for span in spans_of(message)}
        assert all(span.parent_span_id in ids for span in spans_of(message) if span is not root)
        ends.append(root.end_time_unix_nano)
    assert ends[0] < ends[1]


def test_unknown_traces_are_left_out(client: Client, lived: Lived) -> None:
    completed = SagaKey.of("order", lived.ids("completed")[0])
    assert client.trace(SagaKey.of("order", "never")) == []
    assert {span.trace_id for m in client.trace(SagaKey.of("x", "y"), completed) for span in spans_of(m)} == {
        id_of(completed)
    }


def test_sagas_are_found_newest_first_as_asked_for(client: Client, lived: Lived) -> None:
    completed, compensated = lived.ids("completed"), lived.ids("compensated")
    every = client.find()
    assert every[0] == WAITING.id
    assert sorted(every[1:]) == sorted([*completed, *compensated])
    assert client.find(search_depth=3) == every[:3]
    assert client.find(service_name="antiphon", attributes=having(saga_outcome="compensated")) == compensated
    assert client.find(attributes=having(saga_outcome="completed", saga_type="order")) == completed
    assert client.find(operation_name="saga order", attributes=having(error="true")) == compensated
    assert client.find(operation_name="saga parcel") == []
    assert client.find(service_name="shipping", attributes=having(saga_outcome="completed")) == completed
    assert client.find(attributes=having(saga_id=completed[0])) == completed[:1]
    assert client.find(attributes=having(saga_id=completed[0], saga_type="parcel")) == []
    assert client.find(attributes=having(saga_id="no.token")) == []


def test_sagas_are_found_by_when_they_began_and_how_long_they_took(client: Client, lived: Lived) -> None:
    ended = [lived.found[id] for id in (*lived.ids("completed"), *lived.ids("compensated"))]
    roots = sorted((p.spans[-1] for p in ended), key=lambda root: root.start_ns)
    since, until_ = roots[3].start_ns, roots[6].start_ns
    window = {"start_time_min": at(since), "start_time_max": at(until_)}
    assert client.find(**window) == [root.attributes["saga.id"] for root in roots[6:2:-1]]
    length = sorted(root.end_ns - root.start_ns for root in roots)[-4]
    long = {root.attributes["saga.id"] for root in roots if root.end_ns - root.start_ns >= length}
    lasting = {"duration_min": Duration(seconds=length // 10**9, nanos=length % 10**9)}
    assert set(client.find(operation_name="saga order", **lasting)) - {WAITING.id} == long


def at(ns: int) -> Timestamp:
    return Timestamp(seconds=ns // 10**9, nanos=ns % 10**9)


def test_services_and_their_operations_are_those_of_the_traces(client: Client, lived: Lived) -> None:
    spans = [span for p in lived.found.values() for span in (*p.spans, *p.open)]
    services = client.ask("GetServices", api.GetServicesRequest()).services
    assert list(services) == ["antiphon", "billing", "inventory", "shipping"] == sorted({s.service for s in spans})
    for service in services:
        for kind in ("", "internal", "producer", "consumer", "server"):
            request = api.GetOperationsRequest(service=service, span_kind=kind)
            found = {(each.name, each.span_kind) for each in client.ask("GetOperations", request).operations}
            assert found == {(s.name, s.kind) for s in spans if s.service == service and kind in ("", s.kind)}
    nobody = api.GetOperationsRequest(service="nobody")
    assert not client.ask("GetOperations", nobody).operations


def test_the_service_graph_counts_the_calls_of_an_interval(client: Client, lived: Lived) -> None:
    roots = sorted(
        (p for p in lived.found.values() if p.outcome and p.key != WAITING), key=lambda p: p.spans[-1].start_ns
    )
    inside = roots[2:8]
    request = api.GetDependenciesRequest(
        start_time=at(inside[0].spans[-1].start_ns), end_time=at(inside[-1].spans[-1].start_ns)
    )
    found = client.ask("GetDependencies", request).dependencies
    counts = {(each.parent, each.child): each.call_count for each in found}
    assert counts == Counter(call for p in inside for call in calls_in(p.spans))
    assert counts["antiphon", "inventory"] >= len(inside)
    assert {each.source for each in found} == {"antiphon"}


@pytest.mark.parametrize(
    ("name", "request_", "said"),
    [
        ("GetTraces", api.GetTracesRequest(query=[api.GetTraceParams(trace_id=b"short")]), "5 bytes"),
        ("GetTraces", api.GetTracesRequest(query=[api.GetTraceParams()] * 1501), "at most 1500"),
        ("FindTraces", api.FindTracesRequest(query=api.TraceQueryParameters(filter=b"x")), "structured filters"),
        ("GetOperations", api.GetOperationsRequest(), "name one"),
        ("GetDependencies", api.GetDependenciesRequest(start_time=at(2), end_time=at(1)), "swap them"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_question_that_makes_no_sense_is_answered_with_a_sentence(
    client: Client, name: str, request_: Message, said: str
) -> None:
    with pytest.raises(grpc.RpcError, match=said) as failed:
        client.stream(name, request_) if name.endswith("Traces") else client.ask(name, request_)
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_what_is_not_answered_here_says_so_as_jaeger_expects(client: Client) -> None:
    """It falls back to FindTraces then."""
    with pytest.raises(grpc.RpcError) as failed:
        client.stream("FindTraceSummaries", api.FindTracesRequest())
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_request_that_is_too_large_is_refused(client: Client) -> None:
    attributes = [api.KeyValue(key="k" * 1000)] * 300
    with pytest.raises(grpc.RpcError) as failed:
        client.find(attributes=attributes)
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("listen", ["17271", "127.0.0.1:65536", "{taken}"])
def test_where_nobody_can_listen_a_sentence_says_so(lived: Lived, tmp_path: Path, listen: str) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        taken_address = f"127.0.0.1:{taken.getsockname()[1]}"
        running = launch(lived.up, "operator", tmp_path / "log", "--listen", listen.format(taken=taken_address))
        assert running.process.wait(120) == 1
    assert "--listen" in running.log.read_text()
    assert "Traceback" not in running.log.read_text()


def test_whoever_may_not_read_is_told_so(tmp_path: Path) -> None:
    with platform(tmp_path, "accounts", participants=()) as up:
        asyncio.run(up.set_up())
        running = launch(up, "client", tmp_path / "log")
        assert running.process.wait(120) == 1
    (said,) = running.log.read_text().splitlines()
    assert said.startswith("antiphon: the server does not let client use $js.api.direct.get.events. Give")


def test_without_the_extra_a_sentence_names_it() -> None:
    """As grpc is not there then, it is taken away here."""
    code = (
        "import sys; sys.modules['grpc'] = None; sys.argv = ['antiphon', 'jaeger-storage'];"
        "from antiphon.deploy.__main__ import main; main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (
        1,
        "antiphon: Jaeger cannot be answered without antiphon[jaeger]; install it.\n",
    )


# --- against streams that were filled by hand -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("filled"), participants=()) as up:
        asyncio.run(fill(up, troubled(2)))
        yield up


async def fill(up: Platform, voyage: Voyage) -> None:
    await up.set_up()
    link = await up.connect("administrator")
    await play_back(voyage, link)
    await link.close()


@pytest.fixture
async def link(filled: Platform) -> AsyncIterator[Link]:
    link = await filled.connect("operator")
    yield link
    await link.close()


async def put_start(link: Link, subject: str) -> None:
    await link.store(subject, b"{}")


async def found_by(sagas: Sagas, query: Query) -> list[SagaKey]:
    return [found.key async for found in sagas.search(query)]


async def test_a_saga_is_found_at_once_after_it_began(link: Link, filled: Platform) -> None:
    """Without a refresh in between: that is what asking does."""
    sagas = Sagas(link)
    await sagas.refresh()
    voyage, writer = SagaKey.of("voyage", "later"), await filled.connect("administrator")
    before = len(sagas.index)
    await put_start(writer, subjects.start_subject(voyage))
    await put_start(writer, f"evt.{(voyage.partition + 1) % 64}.voyage.later.client.start")
    assert await sagas.trace(id_of(voyage)) is None  # nothing was decided in it
    assert sagas.index.find(id_of(voyage)) == voyage
    assert len(sagas.index) == before + 1  # and a forged start is none
    await writer.close()


async def test_a_rare_outcome_is_not_looked_for_without_end(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sagas_module, "READS_MAX", 2)
    sagas, read = Sagas(link), list[SagaKey]()
    reading = read_projection

    async def count(link: Link, key: SagaKey) -> Projection:
        read.append(key)
        return await reading(link, key)

    monkeypatch.setattr(sagas_module, "read_projection", count)
    assert await found_by(sagas, Query(attributes={"saga.outcome": "lost at sea"})) == []
    assert len(read) == 2
    monkeypatch.setattr(sagas_module, "SEARCH_SECONDS_MAX", -1.0)
    assert await found_by(sagas, Query()) == []
    assert len(read) == 2
    read.clear()
    monkeypatch.setattr(sagas_module, "SURVEY_READS", 1)
    monkeypatch.setattr(sagas_module, "SEARCH_SECONDS_MAX", 10.0)
    assert set(await sagas.services()) >= {"antiphon"}
    await sagas.services()
    assert len(read) == 1


async def test_a_journal_that_cannot_be_read_hides_no_other_saga(link: Link, filled: Platform) -> None:
    broken, writer = SagaKey.of("voyage", "broken"), await filled.connect("administrator")
    await put_start(writer, subjects.start_subject(broken))
    await put_start(writer, subjects.end_subject(broken))
    await writer.close()
    assert KEY in await found_by(Sagas(link), Query())
    with pytest.raises(Exception, match="voyage"):
        await Sagas(link).trace(id_of(broken))


async def test_a_saga_that_is_being_purged_hides_no_other_saga(
    link: Link, filled: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its facts go before its journal, which then names what is not there."""
    monkeypatch.setattr(reading_module, "PAUSE_SECONDS", 0.0)
    sagas, gone, writer = Sagas(link), SagaKey.of("meal", "m1"), await filled.connect("administrator")
    assert gone in (before := await found_by(sagas, Query()))
    await api_of(writer, "STREAM.PURGE.EVENTS", {"filter": f"evt.{gone.path}.>"})
    await writer.close()
    assert await found_by(sagas, Query()) == [key for key in before if key != gone]


async def test_names_of_services_and_operations_are_bounded(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sagas_module, "SERVICES_MAX", 1)
    monkeypatch.setattr(sagas_module, "OPERATIONS_MAX", 2)
    assert [len(operations) for operations in (await Sagas(link).services()).values()] == [2]


async def test_a_server_that_comes_back_with_another_past_is_read_anew(tmp_path: Path) -> None:
    with platform(tmp_path, participants=()) as up:
        await fill(up, Voyage(4, trouble=0.3).live())
        link = await up.connect("operator")
        sagas = Sagas(link)
        await sagas.refresh()
        back = asyncio.Event()
        link.on_reconnect.append(back.set)
        for erased in (False, True):
            back.clear()
            index = sagas.index
            up.server.kill()
            if erased:
                shutil.rmtree(up.server.store)
            up.server.start()
            await link.until(back, SECONDS_MAX)
            if not erased:
                await sagas.refresh()
                assert sagas.index is index
        await up.set_up()
        later = SagaKey.of("voyage", "later")
        await put_start(link, subjects.start_subject(later))
        await sagas.refresh()
        assert [key for portion in sagas.index.newest(0, 2**62) for key in portion] == [later]
        await link.close()


def nobody_gets_in(port: int) -> None:
    """Wait until it is so."""
    code = None
    while code is not grpc.StatusCode.UNAVAILABLE:
        client = Client(port)
        try:
            client.ask("GetServices", api.GetServicesRequest())
        except grpc.RpcError as error:
            code = error.code()
        finally:
            client.channel.close()


async def test_sigterm_lets_a_question_be_answered(filled: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    was_asked, may_answer, port = asyncio.Event(), asyncio.Event(), asyncio.Future[int]()

    async def answer_late(self: Sagas, trace_id: bytes) -> Found | None:
        was_asked.set()
        await may_answer.wait()
        return await answering(self, trace_id)

    def tell(event: str, **said: int) -> None:
        if event == "jaeger_storage.ready":
            port.set_result(said["port"])

    answering = Sagas.trace
    monkeypatch.setattr(Sagas, "trace", answer_late)
    monkeypatch.setattr(os, "nice", lambda by: by)
    monkeypatch.setattr(serve_module.log, "info", tell)
    running = asyncio.create_task(serve_module.serve(filled.servers, listen="127.0.0.1:0"))
    client = Client(await port)
    asking = asyncio.create_task(asyncio.to_thread(client.trace, KEY))
    await asyncio.wait_for(was_asked.wait(), SECONDS_MAX)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.to_thread(nobody_gets_in, port.result())
    may_answer.set()
    assert {span.trace_id for message in await asking for span in spans_of(message)} == {id_of(KEY)}
    await running
    client.channel.close()


async def test_sigterm_ends_a_process_that_still_reads_the_starts(
    filled: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Sagas] = []

    async def never(self: Sagas) -> None:
        read.append(self)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    monkeypatch.setattr(Sagas, "refresh", never)
    monkeypatch.setattr(os, "nice", lambda by: by)
    await asyncio.wait_for(serve_module.serve(filled.servers, listen="127.0.0.1:0"), SECONDS_MAX)
    assert len(read) == 1

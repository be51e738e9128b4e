"""`antiphon doctor` on real servers: each fault is made on purpose, found, and told with what mends it."""

from __future__ import annotations

import asyncio
import gc
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import trustme
from typer.testing import CliRunner

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.pairs import Pairs
from antiphon.contracts.readmodel_places import Place, Reader
from antiphon.contracts.registration import Capabilities
from antiphon.contracts.topology import SAGA
from antiphon.deploy.admin.doctor.access import _of_server
from antiphon.deploy.admin.doctor.clocks import judged
from antiphon.deploy.admin.doctor.examination import CHECKS, examine
from antiphon.deploy.admin.doctor.findings import Deployment, Finding
from antiphon.deploy.admin.doctor.monitor import _part
from antiphon.deploy.admin.doctor.reading import judged as judged_reader
from antiphon.deploy.admin.doctor.streams import _copies_of, _filled, _leaders_of
from antiphon.deploy.cli.main import app
from antiphon.deploy.local.server import HOST, Server, free_port
from antiphon.link import Credentials, Delivery, Link, set_up
from antiphon.link.registration import registration_of
from antiphon.link.setup import api
from antiphon.participants.databases import open_database
from tests.integration.platform.test_coordinator import Company, company, idle
from tests.processes.test_doctor_rights import folder_of
from tests.support.server import until
from tests.support.trip import ASKED, TRIP

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def forgotten_sockets() -> Iterator[None]:
    """nats-py leaves the socket of who was not let in to the garbage collector."""
    yield
    gc.collect()


@pytest.fixture(params=("accounts", "pairs"))
async def there(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Company]:
    async with company(tmp_path, request.param) as everybody:
        yield everybody


async def findings(there: Company, *checks: str) -> list[Finding]:
    """What an administrator is told, of these checks alone if any are named."""
    up = there.up
    link, credentials = await there.link("administrator"), up.credentials("administrator")
    found = [each async for each in examine(Deployment(link, (up.servers,), credentials))]
    return [each for each in found if not checks or each.check in checks]


def told(found: list[Finding], grade: str) -> str:
    return "\n".join(f"{each.check}: {each.what} -> {each.remedy}" for each in found if each.grade == grade)


async def test_a_platform_at_work_has_no_fault_and_each_check_is_heard_of(there: Company) -> None:
    await there.coordinate()
    await there.work()
    found = await findings(there)
    assert told(found, "fault") == ""
    unknown = {each.check: each.remedy for each in found if each.grade == "unknown"}
    assert {*unknown} == {"servers", "rights", "databases"}, "what nobody has named"
    assert all(remedy.startswith("--") for remedy in unknown.values())
    assert told(found, "warning").startswith("exporter: no exporter runs")
    for stream in (await there.link("administrator")).pairs.saga:
        assert f"nats consumer rm {stream} exporter" in told(found, "warning")
    assert "leave it so where nobody looks at traces, as on a laptop. Else: antiphon exporter" in told(found, "warning")
    assert "pip install 'antiphon[otlp]'" in told(found, "warning")
    fine = {each.check for each in found if each.grade == "fine"}
    assert {"server", "passwords", "settings", "copies", "room", "clocks", "coordinators", "participants"} <= fine
    assert "nobody gets in without a password" in told(found, "fine")


async def test_who_does_not_work_and_what_waits_for_whom_is_told(there: Company) -> None:
    found = await findings(there, "coordinators", "participants")
    assert "no coordinator runs" in told(found, "fault")
    assert "no worker of bank runs; nothing waits for one" in told(found, "warning")
    await there.coordinate()
    await (await there.client()).start(TRIP, ASKED, id="t1")
    link = await there.link("administrator")
    await until(lambda: waits(link))
    found = await findings(there, "coordinators", "participants")
    assert (
        "no worker of hotel runs, or all its places are taken; messages that are not done: 1 -> start a worker"
        in told(found, "fault")
    )
    assert "coordinators run and keep up" in told(found, "fine")


async def test_processes_of_one_participant_that_use_several_databases_are_told(there: Company, tmp_path: Path) -> None:
    link = await there.link("hotel")
    for file in ("one", "one", "two", "three"):
        database = open_database(f"sqlite:///{tmp_path / file}.db")
        await database.open()
        said = registration_of(
            Capabilities(name="hotel"), f"on-{file}-{secrets.token_hex(3)}", database=database.number
        )
        await link.store(said.subject, said.encode())
        await database.close()
    faults = told(await findings(there, "participants"), "fault")
    assert faults.startswith(
        "participants: processes of hotel use 3 databases, and none knows what the others have done"
    )
    assert faults.count("on-one-") == 2
    assert "-> stop all but those with the right one" in faults


async def test_a_worker_that_died_with_a_command_in_hand_is_not_at_work(there: Company) -> None:
    await there.coordinate()
    await (await there.client()).start(TRIP, ASKED, id="t1")
    link = await there.link("administrator")
    await until(lambda: waits(link))
    worker = await there.up.connect("hotel")
    taken: list[Delivery] = []
    pull = await worker.pull(worker.pairs.stream_of(SAGA, SagaKey.of("trip", "t1")), "hotel", 10, taken.append)
    await until(lambda: bool(taken))
    pull.close()
    await worker.nc.close()
    found = await findings(there, "participants")
    assert "no worker of hotel runs, or all its places are taken; messages that are not done: 1" in told(found, "fault")


async def waits(link: Link) -> bool:
    infos = [await api(link, f"CONSUMER.INFO.{stream}.hotel") for stream in link.pairs.saga]
    return any(info["num_pending"] for info in infos)


async def test_a_consumer_that_is_gone_and_a_setting_that_differs_are_told(there: Company) -> None:
    link = await there.link("administrator")
    stream = link.pairs.saga[-1]
    await api(link, f"CONSUMER.DELETE.{stream}.timers")
    config = (await api(link, f"STREAM.INFO.{stream}"))["config"]
    await api(link, f"STREAM.UPDATE.{stream}", config | {"max_age": 3_600_000_000_000})
    faults = told(await findings(there, "settings"), "fault")
    assert "timers" in faults
    assert "max_age" in faults
    assert "antiphon setup" in faults


async def test_what_a_person_has_to_do_is_told(there: Company) -> None:
    await there.coordinate()
    await there.work(idle)
    operator = (await there.client("operator")).operator("operator")
    await operator.participant("bank").pause("stocktaking")
    found = told(await findings(there, "parked", "paused"), "warning")
    assert "participant bank is paused by operator: stocktaking -> antiphon resume --participant bank" in found


async def test_a_read_model_that_holds_up_the_purge_is_told(there: Company) -> None:
    link = await there.link("administrator")
    assert await findings(there, "readmodels") == []
    await link.store(subjects.readmodel_subject("lists"), Place(saga=0).encode())
    await link.store(subjects.readmodel_subject("odd"), b"{")
    said = await findings(there, "readmodels")
    assert told(said, "fine") == "readmodels: read model lists runs and keeps up -> "
    assert "no old saga is purged -> as administrator: antiphon setup --forget-readmodel odd" in told(said, "fault")
    reader = Reader("lists", Place(saga=7), 1_700_000_000 * 10**9)
    (behind, away) = (judged_reader(reader, [10**6], silent) for silent in (1.0, 600.0))
    assert (behind.grade, "behind by 999993 messages of SAGA" in behind.what) == ("warning", True)
    assert away.what.startswith("read model lists has said nothing since 2023-11-14T22:13:20Z; 999993 messages of SAGA")
    assert away.remedy.endswith("where it is gone for good: antiphon setup --forget-readmodel lists")
    further = Reader("lists", Place(saga=7, further=((4, 1), (10**6, 1))), 1_700_000_000 * 10**9)
    in_pairs = judged_reader(further, [10, 20_000, 10**6], 1.0)
    assert (in_pairs.grade, "behind by 19999 messages of SAGA" in in_pairs.what) == ("warning", True)


async def test_a_server_without_streams_is_a_fault_and_odd_monitoring_pages_end_no_other_check(tmp_path: Path) -> None:
    with Server(tmp_path / "nats") as server:
        link = await Link.connect(server.url, name="administrator", credentials=Credentials())
        deployment = Deployment(link, (server.url,), Credentials(), (server.url.replace("nats://", "http://"),))
        found = [each async for each in examine(deployment)]
        await link.close()
    assert "stream SAGA" in told(found, "fault")
    assert "http://" in told(found, "unknown")
    assert {each.check for each in found} >= {"parked", "passwords"}
    assert _part({"jetstream": [1]}, "jetstream", "config") == {}


async def test_a_certificate_that_has_run_out_is_a_fault(tmp_path: Path) -> None:
    ca, until = trustme.CA(), datetime(2021, 1, 1)  # noqa: DTZ001 # as trustme takes it
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    made = ca.issue_cert(HOST, not_before=datetime(2020, 1, 1), not_after=until)  # noqa: DTZ001
    made.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "cert.pem"))
    file = f'"{tmp_path}/cert.pem"'
    with Server(tmp_path / "nats", accounts=f"tls {{ cert_file: {file}, key_file: {file} }}") as server:
        host, port = server.url.removeprefix("nats://").split(":")
        finding = await _of_server(Credentials(ca_file=str(tmp_path / "ca.pem")), host, int(port))
    assert (finding.grade, finding.remedy) == ("fault", "Give the server a new one.")
    assert "certificate has expired" in finding.what


@contextmanager
def monitored(folder: Path, sync: str) -> Iterator[tuple[Server, str]]:
    """A server without accounts, with monitoring pages."""
    page = f"{HOST}:{free_port()}"
    with Server(folder / "nats", sync_interval=sync, accounts=f'http: "{page}"') as server:
        yield server, f"http://{page}"


async def of_server(server: Server, monitor: str, check: str) -> list[Finding]:
    link = await Link.connect(server.url, name="administrator", credentials=Credentials())
    try:
        await set_up(link, ["stock"])
        deployment = Deployment(link, (server.url,), Credentials(), (monitor,) if monitor else ())
        return await CHECKS[check](deployment)
    finally:
        await link.close()


async def test_the_only_copy_on_a_server_that_syncs_now_and_then_is_a_warning(tmp_path: Path) -> None:
    with monitored(tmp_path / "a", "always") as (server, monitor):
        assert told(await of_server(server, monitor, "servers"), "warning") == ""
        assert "syncs each write" in told(await of_server(server, monitor, "servers"), "fine")
        assert "lets everybody in" in told(await of_server(server, monitor, "passwords"), "warning")
    with monitored(tmp_path / "b", "2m") as (server, monitor):
        said = told(await of_server(server, monitor, "servers"), "warning")
        assert "syncs every 120 s, and holds the only copy" in said
        assert "could not be read" in told(await of_server(server, "http://127.0.0.1:1", "servers"), "unknown")
        assert "is no http:// or https:// URL" in told(await of_server(server, "file:///x", "servers"), "unknown")


@pytest.mark.parametrize(
    ("days", "grade", "said"),
    [(100, "fine", "is good until"), (20, "warning", "runs out on"), (3, "fault", "runs out on")],
)
async def test_a_certificate_that_runs_out_is_told_in_time(tmp_path: Path, days: int, grade: str, said: str) -> None:
    ca, until = trustme.CA(), datetime.now() + timedelta(days=days)  # noqa: DTZ005 # as trustme takes it
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ca.issue_cert(HOST, not_after=until).private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "cert.pem"))
    file = f'"{tmp_path}/cert.pem"'
    tls = f'tls {{ cert_file: {file}, key_file: {file}, ca_file: "{tmp_path}/ca.pem", verify: true }}'
    files = {name: str(tmp_path / "cert.pem") for name in ("cert_file", "key_file")}
    credentials = Credentials(ca_file=str(tmp_path / "ca.pem"), **files)
    with Server(tmp_path / "nats", accounts=tls) as server:
        link = await Link.connect(server.url, name="administrator", credentials=credentials)
        deployment = Deployment(link, (server.url,), credentials)
        found = await CHECKS["certificates"](deployment)
        assert [each.grade for each in found] == [grade, grade]
        assert all(said in each.what for each in found)
        assert "the connection is encrypted" in told(await CHECKS["encryption"](deployment), "fine")
        await link.close()


async def test_an_unencrypted_connection_to_another_machine_is_a_warning(there: Company) -> None:
    link = await there.link("administrator")
    found = await CHECKS["encryption"](Deployment(link, ("nats://nats.example:4222",), Credentials()))
    assert "with nats.example is not encrypted" in told(found, "warning")


def test_copies_that_are_away_or_late_and_a_stream_without_a_leader_are_told() -> None:
    def of(**cluster: object) -> list[str]:
        info = {"config": {"num_replicas": 3}, "cluster": cluster}
        return [f"{each.grade}: {each.what}" for each in _copies_of(SAGA, info, in_cluster=True)]

    here = {"name": "b", "current": True}
    assert of(leader="a", replicas=[here, here]) == ["fine: each stream has a leader and 3 of 3 copies"]
    assert of(replicas=[here]) == ["fault: stream SAGA has no leader: nothing can be stored in it"]
    (away,) = of(leader="a", replicas=[here, {"name": "c", "offline": True}])
    assert away.startswith("fault: of stream SAGA the copies on c are away")
    (late,) = of(leader="a", replicas=[here, {"name": "c", "current": False}])
    assert late.startswith("warning: of stream SAGA the copies on c are behind")


def test_a_share_of_the_room_and_a_difference_of_clocks_are_graded() -> None:
    assert [_filled("x", used, 100, "--events-max-bytes").grade for used in (74, 75, 89, 90)] == [
        "fine",
        "warning",
        "warning",
        "fault",
    ]
    assert [judged("x", seconds).grade for seconds in (0.5, -2, 29, -31)] == ["fine", "warning", "warning", "fault"]
    assert judged("the server's clock", -2).what == "the server's clock is 2.0 s behind this machine's"


async def test_the_command_tells_programs_as_well_and_fails_where_there_is_a_fault(
    there: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in there.up.environment("administrator").items():
        monkeypatch.setenv(name, value)
    ran = await asyncio.to_thread(lambda: CliRunner().invoke(app, ["doctor", "--json"]))
    assert ran.exit_code == 1, ran.output
    found = json.loads(ran.stdout)
    assert found["fault"] == len([each for each in found["findings"] if each["grade"] == "fault"]) > 0
    ran = await asyncio.to_thread(lambda: CliRunner().invoke(app, ["doctor", "--server", "nats://127.0.0.1:1"]))
    assert ran.exit_code == 1
    assert "no NATS server answers" in ran.stdout
    assert "1 fault, 0 warnings" in ran.stdout


@pytest.mark.parametrize("name", ["client", "operator", "coordinator", "bank"])
async def test_who_may_not_look_is_told_so_once_and_what_he_may_look_at_is_told(
    name: str, there: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await there.link(name)
    found = [each async for each in examine(Deployment(link, (there.up.servers,), there.up.credentials(name)))]
    user, *unnamed = [each for each in found if each.grade == "unknown"]
    assert [each.check for each in unnamed] == ["databases"]
    assert user.what.startswith(f"{name} may not look at everything; not looked at: rights, settings, copies, room, ")
    assert ("parked, paused" in user.what) == (name in ("client", "bank"))
    assert "to the administrator's, who can" in user.remedy
    assert "nats-server" in told(found, "fine")
    assert ("nothing waits for a person" in told(found, "fine")) == (name in ("operator", "coordinator"))
    for variable, value in there.up.environment(name).items():
        monkeypatch.setenv(variable, value)
    ran = await asyncio.to_thread(lambda: CliRunner().invoke(app, ["doctor"]))
    assert ran.exit_code == 1
    assert "$js" not in ran.output.lower()


async def test_a_name_that_is_not_there_is_wrong_usage(
    there: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in there.up.environment("administrator").items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("COLUMNS", "300")
    folder = str(folder_of(there.up, tmp_path))
    for options, said in (
        (("--rights", folder, "--participant", "nobody"), "no participant nobody is set up; those that are: "),
        (("--database", "nobody=memory:"), "no participant nobody is set up; those that are: "),
        (("--rights", str(tmp_path / "nowhere")), "nowhere cannot be read"),
        (("--rights", folder, "--client", "bank=order"), "there can be no such users: 2 users would have"),
        (("--rights", folder, "--operator", "a b"), "there can be no such users: "),
        (("--participant", "bank"), "name that, too, with --rights FOLDER"),
    ):
        ran = await asyncio.to_thread(CliRunner().invoke, app, ["doctor", *options])
        assert (ran.exit_code, ran.stdout) == (2, ""), options
        assert said in ran.output, options


def test_leaders_of_many_pairs_on_one_server_are_told() -> None:
    def of(*leaders: str) -> list[Finding]:
        names = [stream for pair in zip(Pairs(4).saga, Pairs(4).events, strict=True) for stream in pair]
        everybody = {"a", "b", "c"}
        return _leaders_of(
            {
                stream: {"leader": leader, "replicas": [{"name": each} for each in sorted(everybody - {leader})]}
                for stream, leader in zip(names, leaders, strict=False)
            }
        )

    assert of(*"aaaabbcc") == of(*"aabbccab") == of("a", "b") == of() == []
    (found,) = of(*"abaaaaac")
    assert found.grade == "warning"
    assert found.what == "server a leads 6 of the 8 streams of pairs, and the others do little"
    assert found.remedy.endswith("nats stream cluster step-down SAGA-0of4")
    alone = {"SAGA-0of2": {"leader": "only"}, "EVENTS-0of2": {"leader": "only"}}
    assert _leaders_of(alone) == [], "it has no others"

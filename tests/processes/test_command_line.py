"""The command line as a process: what it prints, and the sentence and exit code where it cannot do what was asked."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from antiphon.contracts.errors import BadIdentity
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.topology import EVENTS, FORMER_CONSUMERS, Consumer
from antiphon.deploy.cli import main
from antiphon.deploy.cli.administration import bytes_in
from antiphon.deploy.local.server import Server, free_port
from antiphon.deploy.local.styles import Style
from antiphon.deploy.modules import CannotLoad
from antiphon.deploy.services import declared
from antiphon.link import set_up
from antiphon.link.setup import api
from antiphon.order.data import load_orders
from antiphon.tracing.projection.links import jaeger_link
from tests.support.commands import run_antiphon
from tests.support.server import Platform, platform, until

SAGA = "antiphon.order.saga:order"
INVENTORY = "antiphon.order.inventory:inventory"
ORDER = load_orders()[1]
"""One that nothing stands in the way of."""
PAYLOAD = msgspec.json.encode(ORDER).decode()
SECONDS_MAX = 120.0
DEMO_SECONDS_MAX = 240.0

STARTING = ("start", SAGA, "--id", "mine", "--payload", PAYLOAD)
GUARDED = "tests.integration.platform.test_operators:GUARDED"
NEEDS_A_SERVER = {
    "setup": ("setup", "--participant", "inventory"),
    "coordinator": ("coordinator", "--app", SAGA),
    "participant": ("participant", INVENTORY, "--database", "memory:"),
    "exporter": ("exporter",),
    "jaeger-storage": ("jaeger-storage", "--listen", "127.0.0.1:0"),
    "start": STARTING,
    "list": ("list",),
    "show": ("show", "order/mine"),
    "signal": ("signal", "g1", "trip-cleared", "--app", GUARDED, "--payload", '{"by": "Ada"}', "--wait-for-start"),
    "parked": ("parked",),
    "retry": ("retry", "order/mine"),
    "edit": ("edit", "order/mine", "--step", "charge_customer", "--payload", "{}"),
    "resolve": ("resolve", "order/mine", "--step", "charge_customer", "--reason", "by hand"),
    "cancel": ("cancel", "order/mine", "--reason", "a change of mind"),
    "forget": ("forget", "order/mine", "--reason", "request 17"),
    "archive": ("archive", "archive"),
    "purge-inbox": ("purge-inbox", "--database", "sqlite:///:memory:"),
    "pause": ("pause", "--type", "order", "--reason", "a look"),
    "resume": ("resume", "--participant", "billing"),
}
PATIENT = ("setup", "coordinator", "participant", "exporter", "jaeger-storage")
"""Those that wait five seconds for a server; of them two wait as long for their consumer."""
NO_STREAMS = ("setup", "purge-inbox")
"""What needs none, or looks into a database first."""
NEEDS_STREAMS = {name: arguments for name, arguments in NEEDS_A_SERVER.items() if name not in NO_STREAMS}


def environment(server: str) -> dict[str, str]:
    """No credentials, and a width that no sentence is broken at."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NATS_")}
    return {**kept, "NATS_URL": server, "COLUMNS": "200", "NO_COLOR": "1"}


def antiphon(
    *arguments: str, server: str = "nats://127.0.0.1:1", stdin: str = "", folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, in a folder whose modules it finds."""
    return run_antiphon(arguments, environment(server), folder, stdin)


def at_once(servers: Mapping[str, str]) -> list[subprocess.CompletedProcess[str]]:
    """Run commands side by side, each against its server, because each of them waits."""
    with ThreadPoolExecutor(len(servers)) as pool:
        return list(pool.map(lambda name: antiphon(*NEEDS_A_SERVER[name], server=servers[name]), servers))


def assert_one_sentence(ran: subprocess.CompletedProcess[str], *parts: str, code: int = 1) -> None:
    """Exit code 1, or another, nothing on stdout, no traceback, and these parts in what is said."""
    assert ran.returncode == code, ran.stderr
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    for part in parts:
        assert part in ran.stderr


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A server with its streams set up from the command line, one started saga, and nobody who runs it."""
    with platform(tmp_path_factory.mktemp("up")) as running:
        done = antiphon("setup", *(f"--participant={name}" for name in running.participants), server=running.servers)
        assert done.returncode == 0, done.stderr
        started = antiphon(*STARTING, server=running.servers)
        assert started.returncode == 0, started.stderr
        yield running


# --- when something is missing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NEEDS_A_SERVER if name not in PATIENT])
def test_without_a_server_a_sentence_says_how_to_get_one(name: str) -> None:
    ran = antiphon(*NEEDS_A_SERVER[name], server=f"nats://127.0.0.1:{free_port()}")
    assert_one_sentence(ran, "no NATS server answers", "antiphon up")


def test_those_that_wait_for_a_server_say_the_same_in_the_end() -> None:
    nobody = f"nats://127.0.0.1:{free_port()}"
    for ran in at_once(dict.fromkeys(PATIENT, nobody)):
        assert_one_sentence(ran, "no NATS server answers", "antiphon up")


@pytest.mark.parametrize("name", NEEDS_A_SERVER)
def test_without_jetstream_a_sentence_says_how_to_switch_it_on(name: str, tmp_path: Path) -> None:
    with Server(tmp_path, jetstream=False) as server:
        assert_one_sentence(antiphon(*NEEDS_A_SERVER[name], server=server.url), "JetStream", "store_dir")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which nothing was set up."""
    with Server(tmp_path_factory.mktemp("bare"), sync_interval="2m") as server:
        yield server


@pytest.mark.parametrize("name", [name for name in NEEDS_STREAMS if name not in ("participant", "exporter")])
def test_without_streams_a_sentence_says_how_to_create_them(name: str, bare: Server) -> None:
    ran = antiphon(*NEEDS_STREAMS[name], server=bare.url)
    assert_one_sentence(ran, "antiphon setup")


def test_those_that_wait_for_a_consumer_say_how_to_create_the_streams(bare: Server) -> None:
    for ran in at_once(dict.fromkeys(("participant", "exporter"), bare.url)):
        assert_one_sentence(ran, "antiphon setup")


def test_a_participant_without_consumers_is_told_its_own_remedy(tmp_path: Path) -> None:
    with platform(tmp_path, participants=()) as empty:
        assert antiphon("setup", server=empty.servers).returncode == 0
        ran = antiphon(*NEEDS_A_SERVER["participant"], server=empty.servers)
        assert_one_sentence(ran, "antiphon setup --participant inventory", "participant.waits")
        assert "drained" not in ran.stderr, "it never was ready"


def test_nobody_takes_the_consumer_of_the_exporter(tmp_path: Path) -> None:
    with platform(tmp_path, participants=()) as empty:
        assert antiphon("setup", server=empty.servers).returncode == 0
        before = asyncio.run(filters_of(empty, "SAGA.exporter"))
        ran = antiphon("setup", "--participant", "exporter", server=empty.servers)
        assert_one_sentence(ran, "'exporter' is a name of the platform; call the participant something else", code=2)
        with pytest.raises(BadIdentity, match="is a name of the platform"):
            asyncio.run(set_up_for(empty, "billing", "exporter"))
        assert asyncio.run(filters_of(empty, "SAGA.exporter")) == before
        with pytest.raises(KeyError):  # nothing was begun
            asyncio.run(filters_of(empty, "SAGA.billing"))


async def set_up_for(server: Platform, *participants: str) -> None:
    link = await server.connect("administrator")
    try:
        await set_up(link, participants)
    finally:
        await link.close()


def test_a_participant_that_reacts_is_set_up_from_its_declarations(tmp_path: Path) -> None:
    reacts = "antiphon.order.choreographed.billing:billing"
    with platform(tmp_path, participants=()) as empty:
        assert antiphon("setup", "--participant", "billing", server=empty.servers).returncode == 0
        ran = antiphon("participant", reacts, "--database", "memory:", server=empty.servers)
        assert_one_sentence(ran, "consumer billing-on of stream EVENTS", "antiphon setup --app MODULE:billing")
        done = antiphon("setup", "--app", reacts, "--participant", "shipping", "--json", server=empty.servers)
        assert (done.returncode, json.loads(done.stdout)["participants"]) == (0, ["billing", "shipping"])
        heard = asyncio.run(filters_of(empty, "EVENTS.billing-on"))
        assert sorted(heard) == [
            "evt.*.choreographed-order.*.inventory.inventory-reserved.>",
            "evt.*.choreographed-order.*.shipping.shipping-failed.>",
        ]
        ran = antiphon("setup", "--app", "antiphon.order.saga", server=empty.servers)
        assert_one_sentence(ran, "there is no participant in antiphon.order.saga")


def test_the_consumer_of_reactions_that_are_gone_is_reported_and_deleted_only_on_demand(tmp_path: Path) -> None:
    before, after = "antiphon.order.loyalty:loyalty", "quiet:loyalty"
    (tmp_path / "quiet.py").write_text(
        "from antiphon.participants import Participant\nloyalty = Participant('loyalty')\n"
    )
    with platform(tmp_path / "nats", participants=()) as empty:

        def set_up(*arguments: str) -> subprocess.CompletedProcess[str]:
            return antiphon("setup", *arguments, server=empty.servers, folder=tmp_path)

        done = set_up("--app", before)
        assert (done.returncode, done.stderr) == (0, "")
        assert_one_sentence(set_up("--app", before, "--forget-reactions", "loyalty"), "it must react to nothing there")
        for _ in range(2):
            done = set_up("--app", after)
            assert done.returncode == 0
            assert "consumer loyalty-on is still there, with 0 events" in done.stderr
            assert "--forget-reactions loyalty" in done.stderr
        done = set_up("--app", after, "--forget-reactions", "loyalty")
        assert (done.returncode, done.stderr) == (0, "")
        assert (set_up("--app", after).stderr, set_up("--participant", "loyalty").stderr) == ("", "")


def test_setup_bounds_events_as_it_is_told_and_says_so(tmp_path: Path) -> None:
    with platform(tmp_path, participants=()) as empty:
        done = antiphon("setup", "--events-max-bytes", "8MiB", "--json", server=empty.servers)
        assert json.loads(done.stdout)["events_max_bytes"] == 8 * 1024 * 1024
        done = antiphon("setup", server=empty.servers)
        assert "EVENTS may take 0.00839 GB (8388608 bytes); --events-max-bytes sets another bound." in done.stdout
        ran = antiphon("setup", "--events-max-bytes", "1000000TB", server=empty.servers)
        assert (ran.returncode, ran.stdout.split("\n")[0]) == (
            1,
            f"to be changed: stream EVENTS: max_bytes 8388608 → {10**18}",
        )
        assert "the server refused to create stream EVENTS: insufficient storage" in ran.stderr
        assert_one_sentence(
            antiphon("setup", "--events-max-bytes", "much"), "--events-max-bytes: 'much' is no size", code=2
        )


def test_setup_bounds_a_client_as_it_is_told_and_says_so(tmp_path: Path) -> None:
    with platform(tmp_path, participants=()) as empty:
        done = antiphon("setup", "--bound", "shop=order:1000", "--json", server=empty.servers)
        assert json.loads(done.stdout)["client_bounds"] == [{"client": "shop", "saga_type": "order", "most": 1000}]
        done = antiphon("setup", server=empty.servers)
        assert "client shop may have 1000 sagas of type order open." in done.stdout
        assert_one_sentence(antiphon("setup", "--bound", "shop=order"), "--bound: 'shop=order' is not NAME", code=2)
        said = "--bound: client shop cannot have a bound of 20000 open sagas of type order; give one from 1 to 10000"
        assert_one_sentence(antiphon("setup", "--bound", "shop=order:20000"), said, code=2)
        twice = antiphon("setup", "--bound", "shop=order:1", "--bound", "shop=order:2")
        assert_one_sentence(twice, "--bound: client shop is given two bounds of order sagas: name one", code=2)
        done = antiphon("setup", "--bound", "shop=order:1000", server=empty.servers)
        assert (
            "the bound of shop holds once its account is made with antiphon rights --bound shop=order;" in done.stdout
        )


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5000000", 5_000_000),
        ("500MB", 500_000_000),
        ("20GB", 20_000_000_000),
        ("8GiB", 8 << 30),
        ("2000KB", 2_000_000),
    ],
)
def test_a_size_is_read_with_its_unit(text: str, size: int) -> None:
    assert bytes_in(text) == size


@pytest.mark.parametrize("text", ["20", "999KB"])
def test_a_bound_whose_unit_was_forgotten_is_refused(text: str) -> None:
    with pytest.raises(CannotLoad, match="in which no platform can work"):
        bytes_in(text)


@pytest.mark.parametrize("text", ["", "0", "0GB", "-1", "GB", "1 GB", "1gb", "1.5GB", "9" * 16, "999999999999999TiB"])
def test_what_is_no_size_is_said(text: str) -> None:
    with pytest.raises(CannotLoad, match="is no size; give one such as 500MB, 20GB or 8GiB"):
        bytes_in(text)


def test_what_cannot_be_bound_is_said_before_anything_runs() -> None:
    for wrong in ("order", "order=0", "order=100001"):
        ran = antiphon("coordinator", "--app", "antiphon.order.saga:order", "--open-max", wrong)
        assert ran.returncode == 2
        assert "give a type and a number from 1 to 100000" in " ".join(ran.stderr.split())
    ran = antiphon("coordinator", "--app", "antiphon.order.saga:order", "--open-max", "hotel=5")
    assert_one_sentence(ran, "a bound is given for sagas of type 'hotel', and this coordinator has none")
    choreographed = "antiphon.order.choreographed.saga:choreographed_order"
    ran = antiphon("coordinator", "--app", choreographed, "--open-max", "choreographed-order=5")
    assert_one_sentence(ran, "'choreographed-order' cannot be bound: nobody leads them")


def test_the_consumers_of_earlier_coordinators_are_reported_and_deleted_only_on_demand(tmp_path: Path) -> None:
    with platform(tmp_path / "nats", participants=()) as empty:
        assert antiphon("setup", server=empty.servers).stderr == ""
        asyncio.run(as_an_earlier_release(empty))
        done = antiphon("setup", server=empty.servers)
        assert (
            "in stream EVENTS there is still consumer coordinator and consumer coordinator-answers, for" in done.stderr
        )
        assert "none of them can be seen" in done.stderr
        done = antiphon("setup", "--forget-former-coordinators", server=empty.servers)
        assert (done.returncode, done.stderr) == (0, "")
        assert antiphon("setup", server=empty.servers).stderr == ""


async def as_an_earlier_release(up: Platform) -> None:
    """Create the consumers for all facts, and for the answers of all participants."""
    link = await up.connect("administrator")
    try:
        for name in FORMER_CONSUMERS:
            config = Consumer(stream=EVENTS, name=name, filters=("evt.>",), ack_wait_seconds=5.0).config()
            await api(link, f"CONSUMER.CREATE.{EVENTS}.{name}", {"stream_name": EVENTS, "config": config})
    finally:
        await link.close()


async def filters_of(up: Platform, consumer: str) -> list[str]:
    link = await up.connect("administrator")
    try:
        filters: list[str] = (await api(link, f"CONSUMER.INFO.{consumer}"))["config"]["filter_subjects"]
        return filters
    finally:
        await link.close()


# --- when something is wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("antiphon.order.inventory", "has neither a saga nor a choreography"),
        ("nowhere.at_all:order", "there is no module"),
        ("antiphon.order.saga:nothing", "antiphon.order.saga:order"),
        (INVENTORY, "is no Saga"),
    ],
)
def test_what_cannot_be_loaded_is_a_sentence(named: str, said: str) -> None:
    assert_one_sentence(antiphon("coordinator", "--app", named), said)


def test_a_payload_of_another_shape_is_a_sentence(up: Platform) -> None:
    ran = antiphon("start", SAGA, "--id", "other", "--payload", '{"order_id": 1}', server=up.servers)
    assert_one_sentence(ran, "OrderPlaced")


def test_another_payload_for_the_same_id_changes_nothing(up: Platform) -> None:
    """Without a coordinator nobody compares it, so nobody is told that it is the same."""
    other = msgspec.json.encode(msgspec.structs.replace(ORDER, quantity=ORDER.quantity + 1)).decode()
    ran = antiphon("start", SAGA, "--id", "mine", "--payload", other, server=up.servers)
    assert_one_sentence(ran, "the start of saga order/mine is stored already", "nothing was changed")


def test_an_unknown_saga_is_a_sentence(up: Platform) -> None:
    assert_one_sentence(antiphon("show", "order/nobody", server=up.servers), "there is no saga order/nobody")
    assert_one_sentence(antiphon("show", "nobody", server=up.servers), "there is no saga with the id nobody")
    cancelled = antiphon("cancel", "order/nobody", "--reason", "none", server=up.servers)
    assert_one_sentence(cancelled, "there is no saga order/nobody")


def test_a_cancel_is_stored_without_anybody_to_hear_it(up: Platform) -> None:
    ran = antiphon("cancel", "mine", "--reason", "a change of mind", "--timeout", "0.5", server=up.servers)
    undecided = "the request to cancel saga order/mine is stored, and no coordinator has decided on it"
    assert_one_sentence(ran, undecided, code=3)
    told = antiphon("show", "mine", "--json", "--server", up.servers).stdout
    assert "asks to cancel: a change of mind" in told


@pytest.mark.parametrize(
    "arguments",
    [("pause", "--reason", "x"), ("pause", "mine", "--type", "order", "--reason", "x"), ("resume",)],
)
def test_what_is_paused_is_named_in_one_way(arguments: tuple[str, ...]) -> None:
    ran = antiphon(*arguments)
    assert ran.returncode == 2
    assert "name one of ID, --type and --participant" in ran.stderr


def test_a_payload_that_is_no_json_is_a_sentence(up: Platform) -> None:
    ran = antiphon("edit", "mine", "--step", "charge_customer", "--payload", "{no", server=up.servers)
    assert_one_sentence(ran, "what was given is no JSON: object keys must be strings at line 1, column 2")


def test_a_signal_is_checked_before_it_is_sent_since_the_first_one_counts(up: Platform) -> None:
    signal = ("signal", "g1", "trip-cleared", "--app", GUARDED, "--wait-for-start", "--timeout", "1", "--payload")
    assert_one_sentence(antiphon(*signal, '{"by": 1}', server=up.servers), "Cleared")
    wrong = antiphon("signal", "g1", "cleared", "--app", GUARDED, server=up.servers)
    assert_one_sentence(wrong, "saga guarded has no signal 'cleared'; it waits for trip-cleared")
    other = ("signal", "order/g1", *signal[2:])
    named = f"order/g1 is of type order, and {GUARDED} is the saga guarded"
    assert_one_sentence(antiphon(*other, '{"by": "Ada"}', server=up.servers), named)
    stored = antiphon(*signal, '{"by": "Ada"}', server=up.servers)  # which no coordinator takes in
    assert_one_sentence(stored, "the request to signal saga guarded/g1 is stored, and no coordinator has", code=3)
    again = antiphon(*signal, '{"by": "Bob"}', server=up.servers)  # which no coordinator compares
    assert_one_sentence(again, "the signal trip-cleared of saga guarded/g1 is stored already", "nothing was changed")


def test_nothing_that_waits_is_said_in_words(up: Platform) -> None:
    assert antiphon("parked", server=up.servers).stdout.strip() == "nothing waits for a person."
    assert json.loads(antiphon("parked", "--json", server=up.servers).stdout) == []
    assert_one_sentence(antiphon("parked", "--message", "7", server=up.servers), "PARKED holds no message 7")


def test_a_comparison_ends_with_0_for_the_same_and_1_for_others() -> None:
    same = antiphon("diff", SAGA, SAGA)
    assert (same.returncode, same.stdout.splitlines()[-1]) == (0, "Both are the same.")
    other = antiphon("diff", SAGA, GUARDED, "--json")
    assert other.returncode == 1
    assert "different sagas" in json.loads(other.stdout)["meaning"][0]


def test_no_time_to_start_in_is_a_matter_of_usage() -> None:
    ran = antiphon("start", SAGA, "--id", "one", "--payload", "{}", "--timeout", "0")
    assert ran.returncode == 2
    assert "0.1" in ran.stderr


def test_examples_name_what_a_new_project_has() -> None:
    """`antiphon new shop` writes these modules; an older one is beside it where two are compared."""
    help = Path(main.__file__).read_text() + Path(declared.__file__).read_text()
    found = set(re.findall(r"\bshop\.(\w+):(\w+)", help))
    assert found <= {("saga", "order"), ("stock", "stock"), ("billing", "billing"), ("saga_v1", "order")}
    assert found >= {("saga", "order"), ("stock", "stock")}


def test_a_wrong_option_is_a_matter_of_usage() -> None:
    ran = antiphon("list", "--nonsense")
    assert ran.returncode == 2
    assert "Usage" in ran.stderr


# --- what it prints ---------------------------------------------------------------------------------------------------


def test_while_no_coordinator_runs_nobody_says_whether_a_start_is_the_same(up: Platform) -> None:
    again = antiphon(*STARTING[:-1], "@-", "--json", server=up.servers, stdin=PAYLOAD)
    assert_one_sentence(again, "the start of saga order/mine is stored already, and whether it is the same cannot be")


def test_list_for_programs(up: Platform) -> None:
    listed = json.loads(antiphon("list", "--json", server=up.servers).stdout)
    assert [(each["type"], each["id"], each["state"]) for each in listed] == [("order", "mine", "running")]


def test_show_for_programs(up: Platform) -> None:
    told = json.loads(antiphon("show", "mine", "--json", server=up.servers).stdout)
    assert (told["type"], told["id"], told["state"]) == ("order", "mine", "running")
    assert told["lines"][0]["kind"] == "start"


def test_show_for_people(up: Platform) -> None:
    told = antiphon("show", "order/mine", server=up.servers).stdout
    assert "order/mine" in told
    assert "running" in told
    assert "order.placed" in told


def test_where_jaeger_is_known_start_and_show_say_where_the_trace_is(
    up: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_JAEGER_URL", "http://jaeger.example:16686/")
    link = jaeger_link(SagaKey.of("order", "mine"), "http://jaeger.example:16686")
    for id, options in (("other", ()), ("another", ("--json",))):
        start = antiphon(*STARTING[:3], id, *STARTING[4:], *options, server=up.servers).stdout
        assert jaeger_link(SagaKey.of("order", id), "http://jaeger.example:16686") in start
    assert link in antiphon("show", "order/mine", server=up.servers).stdout
    assert json.loads(antiphon("show", "order/mine", "--json", server=up.servers).stdout)["trace"] == link


@pytest.mark.parametrize("command", ["", *NEEDS_A_SERVER, "up", "demo", "rights", "diff"])
def test_every_command_explains_itself(command: str) -> None:
    ran = antiphon(*([command] if command else []), "--help")
    assert ran.returncode == 0
    assert "Usage" in ran.stdout


def test_help_is_readable_in_eighty_columns() -> None:
    narrow = {**environment("nats://127.0.0.1:1"), "COLUMNS": "80"}
    for command in (["resolve"], ["rights"], ["flow", "who"], ["trace", "show"]):
        program = [sys.executable, "-m", "antiphon.deploy", *command, "--help"]
        told = subprocess.run(program, env=narrow, capture_output=True, text=True, timeout=SECONDS_MAX, check=True)
        assert re.search(r"--[\w-]*…", told.stdout) is None, told.stdout
        assert max(map(len, told.stdout.splitlines())) <= 80
        if command == ["resolve"]:
            assert "Each run of a handler outside=True is a claim" in " ".join(told.stdout.split()), told.stdout


# --- processes that stay ----------------------------------------------------------------------------------------------


async def test_processes_run_an_order_and_drain_on_sigterm(tmp_path: Path) -> None:
    commands = {"coordinator": NEEDS_A_SERVER["coordinator"]}
    for name in ("inventory", "billing", "shipping"):
        path, database = f"antiphon.order.{name}:{name}", f"sqlite:///{tmp_path}/{name}.db"
        commands[name] = ("participant", path, "--database", database)
    with platform(tmp_path) as running:
        await running.set_up()
        children = [serving(arguments, running.servers, tmp_path / name) for name, arguments in commands.items()]
        try:
            ended = antiphon(*STARTING, "--wait", "--json", server=running.servers)
            assert json.loads(ended.stdout)["outcome"] == "completed"
            same = antiphon(*STARTING[:-1], "@-", "--json", server=running.servers, stdin=PAYLOAD)
            assert json.loads(same.stdout) == {
                "type": "order",
                "id": "mine",
                "was_started": True,
                "version": 1,
                "outcome": "completed",
                "reason": "",
            }
            paused = antiphon("pause", "--type", "order", "--reason", "a look", "--as", "ada", server=running.servers)
            assert paused.stdout == "type order: pause is accepted, asked for by ada.\n"
            again = antiphon("pause", "--type", "order", "--reason", "a look", server=running.servers)
            assert_one_sentence(again, "type order: pause is rejected: it is paused already: paused by ada: a look")
            late = antiphon("retry", "mine", "--json", server=running.servers)
            assert json.loads(late.stdout)["rejected"] == "the saga has ended: it is completed"
            assert late.returncode == 1
        finally:
            for child in children:
                child.terminate()
        await until(lambda: all(child.poll() is not None for child in children), what="the drain")
        assert [child.returncode for child in children] == [0] * len(children)


def serving(arguments: tuple[str, ...], server: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a process that stays."""
    with log.with_suffix(".log").open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "antiphon.deploy", *arguments], env=environment(server), stdout=out, stderr=out
        )


@pytest.mark.parametrize(("style", "more"), [*((style, []) for style in Style), (Style.HYBRID, ["--jwt"])])
def test_a_short_demo_ends_with_balanced_ledgers(style: Style, more: list[str], tmp_path: Path) -> None:
    options = [*more, "--style", style, "--orders", "10", "--folder", str(tmp_path / "demo")]
    ran = subprocess.run(
        [sys.executable, "-m", "antiphon.deploy", "demo", *options],
        env=environment("nats://127.0.0.1:1"),
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS_MAX,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    pace, verdict = ran.stdout.splitlines()[-2:]
    assert re.fullmatch(
        r"[\d.]+ sagas/s before the kills, [\d.]+ after them, and [\d.]+ s in which nothing ended", pace
    )
    assert re.fullmatch(r"demo: 10 sagas, (\d+) completed, (\d+) compensated, 0 open, ledgers balance", verdict)
    assert "was killed by SIGKILL" in ran.stdout

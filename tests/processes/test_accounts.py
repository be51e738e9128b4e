"""`antiphon rights`: its text, its secrets, and what the command line says to a user who lacks a right."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from antiphon.deploy.admin.rights import (
    ANY,
    EXPORTER_NEEDS,
    FORMER_CLIENT_NEEDS,
    OPERATOR_NEEDS,
    READMODEL_NEEDS,
    SIGNAL,
    VERBS,
    Grant,
    Need,
    Rights,
    bound_needs,
    client_needs,
    coordinator_needs,
    participant_needs,
    server_environment,
)
from antiphon.deploy.files import write_private
from antiphon.deploy.local.server import Server, find_binary
from antiphon.link import Credentials, Link
from tests.support.commands import run_antiphon
from tests.support.server import Platform, platform, until

ONE_CLIENT = ("--participant", "inventory", "--client", "shop=order", "--client", "fraud=order:read")
DEPLOY = Path(__file__).parents[2] / "deploy"
RIGHTS = ("rights", "--participant", "inventory", "--participant", "billing", "--client", "client=order")
PUBLIC_NKEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"  # of the NATS documentation
BCRYPT = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
HASHED = "U*U"  # a test vector of bcrypt


def antiphon(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, as nobody but who the environment says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NATS_")}
    return run_antiphon(arguments, {**kept, **environment})


def variables(file: Path) -> dict[str, str]:
    """What a file of environment variables holds."""
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


async def test_a_server_takes_the_printed_accounts_and_the_written_passwords(tmp_path: Path) -> None:
    printed = antiphon(*RIGHTS, "--secrets", str(tmp_path / "secrets"))
    assert printed.returncode == 0, printed.stderr
    environment = variables(tmp_path / "secrets" / "nats-server.env")
    with Server(tmp_path / "nats", accounts=printed.stdout, environment=environment) as server:
        for user in ("administrator", "coordinator", "operator", "client", "inventory", "billing"):
            theirs = variables(tmp_path / "secrets" / f"{user}.env")
            credentials = Credentials(user=theirs["NATS_USER"], password=theirs["NATS_PASSWORD"])
            link = await Link.connect(server.url, name="test", credentials=credentials)
            await link.close()


def lets_in(server: Server, folder: Path, user: str) -> bool:
    """Whether a user gets in with the password in a folder of secrets."""
    ran = antiphon("list", NATS_URL=server.url, **variables(folder / f"{user}.env"))
    return "does not let this user in" not in ran.stderr


async def reload_into(server: Server, accounts: str, sign: str) -> None:
    """Have a server read other accounts, until its log says what became of that."""
    server.accounts = accounts
    write_private(server.folder / "nats.conf", server.config())
    server.send_signal(signal.SIGHUP)
    await until(lambda: sign in server.log.read_text(), what=sign)


async def test_a_new_user_with_a_password_needs_a_restart_as_the_printed_accounts_say(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    first = antiphon(*RIGHTS, "--secrets", str(old)).stdout
    second = antiphon(*RIGHTS, "--client", "web=order", "--secrets", str(new)).stdout
    for said in (first, (DEPLOY / "nats.conf.example").read_text()):
        comment = " ".join(line.strip("# ") for line in said.splitlines() if line.startswith("#"))
        assert "a reload is refused" in comment
        assert "restart each server" in comment
    with Server(tmp_path / "nats", accounts=first, environment=variables(old / "nats-server.env")) as server:
        await reload_into(server, second, "Failed to reload server configuration")
        assert "NATS_PASSWORD_WEB" in server.log.read_text()
        assert lets_in(server, old, "client"), "the old accounts stay"
        server.kill()
        line = {"NATS_PASSWORD_WEB": variables(new / "nats-server.env")["NATS_PASSWORD_WEB"]}
        server.environment = {**server.environment, **line}
        server.start()
        assert lets_in(server, old, "client"), "the old passwords stay"
        assert lets_in(server, new, "web")


async def test_a_new_user_with_a_key_and_one_that_goes_need_a_reload_alone(tmp_path: Path) -> None:
    old = tmp_path / "old"
    first = antiphon(*RIGHTS, "--client", "web=order", "--secrets", str(old)).stdout
    second = antiphon(*RIGHTS, "--client", "key=order", "--nkey", f"key={PUBLIC_NKEY}").stdout
    with Server(tmp_path / "nats", accounts=first, environment=variables(old / "nats-server.env")) as server:
        assert lets_in(server, old, "web")
        await reload_into(server, second, "Reloaded server configuration")
        assert lets_in(server, old, "client")
        assert not lets_in(server, old, "web")


def test_secrets_are_for_their_owner_only_and_are_printed_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    printed = antiphon(*RIGHTS, "--secrets", str(folder))
    files = list(folder.iterdir())
    assert len(files) == 9  # eight users and the server
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    passwords = {value for file in files for name, value in variables(file).items() if name != "NATS_USER"}
    assert len(passwords) == 8
    assert not [password for password in passwords if password in printed.stdout + printed.stderr]


STARTING = """
from antiphon.participants import Participant

billing = Participant("billing", starts=["refund"])
stock = Participant("stock")
"""


def test_what_a_participants_program_starts_is_taken_from_its_declaration(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(STARTING)
    declared = antiphon("rights", "--app", "shop", PYTHONPATH=str(tmp_path))
    said = antiphon("rights", "--participant", "billing=refund", "--participant", "stock")
    assert declared.stdout == said.stdout
    granted = [line for line in declared.stdout.splitlines() if "evt.*.refund.*.client.start" in line]
    assert [line.split(",")[0].strip() for line in granted if "user:" in line] == ['{ user: "billing"']
    assert [line for line in granted if line.strip().startswith("{ service: ") and "accounts" in line] == [
        '      { service: "evt.*.refund.*.client.start", accounts: ["PARTICIPANT-billing"] }'
    ]


def test_without_a_client_nobody_may_start_a_saga_but_operators_and_that_is_said() -> None:
    ran = antiphon("rights", "--participant", "inventory")
    assert "no client has an account" in ran.stderr
    assert "CLIENT-" not in ran.stdout
    former = antiphon("rights", "--participant", "inventory", "--former-client", "shop")
    assert "shop may start, cancel and signal every saga, and read what others have started" in former.stderr


async def test_a_password_may_be_a_bcrypt_hash_in_the_servers_environment(tmp_path: Path) -> None:
    rights = Rights(["inventory"])
    passwords = {**rights.new_passwords(), "inventory": BCRYPT}
    with Server(tmp_path, accounts=rights.config(), environment=server_environment(passwords)) as server:
        link = await Link.connect(server.url, name="test", credentials=Credentials(user="inventory", password=HASHED))
        assert link.nc.is_connected
        await link.close()
        for wrong in (BCRYPT, "U*V"):  # the hash is no password, and not every password has it
            ran = antiphon("list", NATS_URL=server.url, NATS_USER="inventory", NATS_PASSWORD=wrong)
            assert ran.returncode == 1
            assert "does not let this user in" in ran.stderr


def test_a_user_may_have_a_key_instead_of_a_password(tmp_path: Path) -> None:
    printed = antiphon(*RIGHTS, "--nkey", f"inventory={PUBLIC_NKEY}", "--secrets", str(tmp_path / "secrets"))
    assert f"nkey: {PUBLIC_NKEY}" in printed.stdout
    assert not (tmp_path / "secrets" / "inventory.env").exists()
    environment = variables(tmp_path / "secrets" / "nats-server.env")
    with Server(tmp_path / "nats", accounts=printed.stdout, environment=environment):
        pass  # the server has read it


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--participant", "client"), "is a name of the platform"),
        (("--participant", "exporter"), "is a name of the platform"),
        (("--participant", "in ventory"), "1 to 64 characters"),
        (("--participant", "a-b", "--participant", "a_b"), "NATS_PASSWORD_A_B"),
        (("--participant", "a-undo"), "no participant's name may end in -undo"),
        (("--participant", "a", "--client", "administrator=order"), "NATS_PASSWORD_ADMINISTRATOR"),
        (("--participant", "a", "--client", "web=order", "--former-client", "web"), "NATS_PASSWORD_WEB"),
        (("--participant", "a", "--client", "web"), "is not NAME=TYPE"),
        (("--participant", "a", "--client", "web=order:"), "is not NAME=TYPE"),
        (("--participant", "a", "--client", "web=*"), "means more than one type or signal"),
        (("--participant", "a", "--client", "web=order:signal.*"), "means more than one type or signal"),
        (("--participant", "a", "--client", "web=order:begin"), "'begin' is no verb: start, cancel, read and signal."),
        (("--participant", "a", "--client", "web=order:signal."), "1 to 64 characters"),
        (("--participant", "a", "--client", "web=or der"), "1 to 64 characters"),
        (("--participant", "a", "--client", "web=lock"), "'lock' is no saga type"),
        (("--participant", "a=lock"), "'lock' is no saga type"),
        (("--client", "web=order"), "name the participants"),
        (("--participant", "inventory", "--nkey", "inventory"), "user=KEY"),
        (("--participant", "inventory", "--nkey", "inventory=UABC"), "U and 55 more letters"),
        (("--participant", "inventory", "--nkey", f"inventori={PUBLIC_NKEY}"), "there is no user 'inventori'"),
        (("--participant", "billing=*"), "means every saga type"),
        (("--participant", "billing=refund,*"), "means every saga type"),
        (("--participant", "inventory", "--bound", "shop"), "'shop' is not NAME=TYPE, as in shop=order"),
        (("--participant", "inventory", "--bound", "shop=order"), "Grant that (--client shop=order)"),
        ((*ONE_CLIENT, "--bound", "shop=order:0"), "give one from 1 to 10000"),
        ((*ONE_CLIENT, "--bound", "shop=order:many"), "'shop=order:many' is not NAME=TYPE:NUMBER"),
        ((*ONE_CLIENT, "--bound", "fraud=order"), "it may only read of sagas of that type, and stores nothing"),
        ((*ONE_CLIENT, "--bound", "inventory=order"), "it is a participant, and only clients have bounds"),
        ((*ONE_CLIENT, "--bound", "operator=order"), "it is an operator, and only clients have bounds"),
        (
            ("--participant", "inventory", "--former-client", "web", "--bound", "web=order"),
            "name it with --client web=order and no more with --former-client, have the accounts made anew",
        ),
        (("--participant", "inventory", "--secrets", __file__), f"cannot write secrets to {__file__}"),
    ],
)
def test_names_that_cannot_be_users_are_refused(arguments: tuple[str, ...], said: str) -> None:
    ran = antiphon("rights", *arguments)
    assert (ran.returncode, ran.stdout) == (1 if "cannot write" in said else 2, "")
    assert said in ran.stderr


def test_the_number_of_a_bound_is_said_to_be_for_the_set_up() -> None:
    plain = antiphon("rights", *ONE_CLIENT, "--bound", "shop=order")
    numbered = antiphon("rights", *ONE_CLIENT, "--bound", "shop=order:1000", "--bound", "shop=order")
    assert (numbered.returncode, numbered.stdout) == (0, plain.stdout)
    assert "is for antiphon setup --bound shop=order:1000." in numbered.stderr
    assert "--bound" not in plain.stderr
    for verb in ("start", "cancel", "signal.paid"):  # what is stored by any of them goes to streams of its own
        only = antiphon("rights", "--participant=inventory", f"--client=shop=order:{verb}", "--bound=shop=order")
        assert (only.returncode, "from.shop" in only.stdout) == (0, True)


# --- without a right --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("accounts"), "accounts") as running:
        done = antiphon("setup", "--participant", "inventory", **running.environment("administrator"))
        assert done.returncode == 0, done.stderr
        yield running


LIST = ("list",)
COORDINATOR = ("coordinator", "--app", "antiphon.order.saga:order")
PARTICIPANT = ("participant", "antiphon.order.inventory:inventory", "--database", "memory:")


@pytest.mark.parametrize(
    ("user", "arguments"),
    [
        ("client", LIST),
        ("client", ("setup",)),
        ("inventory", LIST),
        ("inventory", COORDINATOR),
        ("inventory", ("cancel", "order/one", "--reason", "mine")),
        ("billing", PARTICIPANT),
        ("operator", COORDINATOR),
    ],
)
def test_a_user_without_the_right_is_told_which_subject(user: str, arguments: tuple[str, ...], up: Platform) -> None:
    ran = antiphon(*arguments, **up.environment(user))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "Traceback" not in ran.stderr
    assert f"does not let {user} use" in ran.stderr
    assert "deploy/README.md" in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        LIST,
        ("show", "order/one"),
        ("parked",),
        ("cancel", "order/one", "--reason", "mine"),
        ("cancel", "one", "--reason", "mine"),
        ("pause", "--type", "order", "--reason", "mine"),
        ("dismiss", "7", "--reason", "mine"),
        ("setup",),
    ],
    ids=" ".join,
)
def test_a_client_is_not_advised_to_be_given_what_is_for_others(arguments: tuple[str, ...], up: Platform) -> None:
    ran = antiphon(*arguments, **up.environment("client"))
    whose = "the administrator" if arguments == ("setup",) else "operators"
    assert f"That is for {whose} alone: set NATS_USER and NATS_PASSWORD to theirs." in ran.stderr
    assert "Give its user that right" not in ran.stderr
    assert ("handle.cancel" in ran.stderr) is (arguments[0] in ("cancel", "pause"))


def test_an_operator_lists_sagas_that_a_client_started(up: Platform) -> None:
    assert antiphon("list", **up.environment("operator")).returncode == 0


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_stranger_is_told_how_to_say_who_it_is(password: str, up: Platform) -> None:
    who = {"NATS_USER": "operator", "NATS_PASSWORD": password} if password else {}
    ran = antiphon(*LIST, NATS_URL=up.servers, **who)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "does not let this user in" in ran.stderr
    assert "NATS_USER" in ran.stderr
    assert "wrong" not in ran.stderr


# --- what is written down ---------------------------------------------------------------------------------------------


def rows() -> list[str]:
    """Every right outside the administrator's, as deploy/README.md shows it."""
    outside = [("coordinator", "PLATFORM", coordinator_needs(["<name>"]))]
    outside += [("coordinator, for a client with a bound", "PLATFORM", bound_needs({"<client>": ["<type>"]}))]
    own = participant_needs("<name>")
    outside += [("a participant", "PARTICIPANT-*name*", own)]
    starts = [need for need in participant_needs("<name>", [ANY]) if need not in own]
    outside += [("one that starts sagas of a type", "PARTICIPANT-*name*", _of_a_type(starts))]
    for verb in (*VERBS, f"{SIGNAL}{ANY}"):
        told = f"a client, `{verb.replace(ANY, 'NAME')}`"
        outside += [(told, "CLIENT-*name*", _of_a_type(client_needs([Grant(ANY, (verb,))])))]
    outside += [("a client of an earlier release", "CLIENT-*name*", FORMER_CLIENT_NEEDS)]
    outside += [("operator", "OPERATORS", OPERATOR_NEEDS)]
    outside += [("readmodel", "READMODELS", READMODEL_NEEDS), ("exporter", "EXPORTERS", EXPORTER_NEEDS)]
    return [
        f"| {user} | {account} | `{need.subject}` | {need.why} |" for user, account, needs in outside for need in needs
    ]


def _of_a_type(needs: Iterable[Need]) -> tuple[Need, ...]:
    """The same as the page writes them: with the type and the signal in angle brackets."""
    found: list[Need] = []
    for need in needs:
        subject = re.sub(r"(evt\.\*|saga\.\*|antiphon\.\w+)\.\*", r"\1.<type>", need.subject)
        found.append(replace(need, subject=re.sub(r"signal\.\*", "signal.<name>", subject)))
    return tuple(found)


def test_the_readme_shows_every_right_and_no_other() -> None:
    shown = [line for line in (DEPLOY / "README.md").read_text().splitlines() if line.count("|") == 5][2:]
    assert shown == rows()


def test_the_example_is_a_configuration_the_server_takes(tmp_path: Path) -> None:
    rights = Rights(["inventory"])
    (tmp_path / "accounts.conf").write_text(rights.config())
    (tmp_path / "nats.conf").write_text((DEPLOY / "nats.conf.example").read_text())
    environment = {**os.environ, **server_environment(rights.new_passwords())}
    checked = subprocess.run(
        [find_binary(), "-t", "--config", str(tmp_path / "nats.conf")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr

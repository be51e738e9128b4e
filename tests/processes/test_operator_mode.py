"""`antiphon rights --jwt`: files and keys, what a server makes of them, and who is refused from when on."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from antiphon.contracts.identity import CLIENT, OPERATOR, SagaKey
from antiphon.contracts.subjects import matches, start_subject, verb_subject
from antiphon.contracts.topology import EVENTS
from antiphon.deploy.admin import operator_mode
from antiphon.deploy.admin.logins import by_creds
from antiphon.deploy.admin.operator_mode import KEYS, _import_claim, signed
from antiphon.deploy.admin.rights import EVERYTHING, PLATFORM, Account, Grant, Need, Rights, exports
from antiphon.deploy.admin.tokens import kept_key
from antiphon.deploy.local.server import Server
from antiphon.link import Credentials, Link, StoredMessage, set_up
from antiphon.link.creds import user_in
from tests.integration.platform.test_answers import reloaded
from tests.processes.test_accounts import antiphon
from tests.support.server import platform

ASKED = ("rights", "--participant", "inventory", "--client", "web=order", "--operator", "ada")
SEED = re.compile("S[OAU][A-Z2-7]{56}")
ORDER = SagaKey.of("order", "one")


def claims(token: str) -> dict[str, Any]:
    """What a JWT says."""
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


async def test_a_server_takes_the_printed_accounts_and_lets_every_user_in(tmp_path: Path) -> None:
    printed = antiphon(*ASKED, "--jwt", str(tmp_path / "jwt"))
    assert printed.returncode == 0, printed.stderr
    with Server(tmp_path / "nats", accounts=printed.stdout) as server:
        for user in ("administrator", "coordinator", "ada", "web", "inventory", "readmodel", "exporter"):
            file = str(tmp_path / "jwt" / f"{user}.creds")
            link = await Link.connect(server.url, name="test", credentials=Credentials(creds_file=file))
            assert link.new_inbox().startswith(f"_INBOX_{user}."), "the file says the user"
            await link.close()
        listed = antiphon("wait", NATS_URL=server.url, NATS_CREDS=str(tmp_path / "jwt" / "web.creds"))
        assert "does not let web use" in listed.stderr


async def test_a_coordinator_of_forty_participants_is_let_in(tmp_path: Path) -> None:
    """Its rights are more than a server reads of a line unless it is told to."""
    logins = by_creds(Rights([f"participant-number-{number}" for number in range(40)], {}), tmp_path / "jwt")
    with Server(tmp_path / "nats", accounts=logins.config) as server:
        link = await Link.connect(server.url, name="test", credentials=logins.users["coordinator"])
        await link.close()


def test_seeds_are_for_their_owner_only_and_are_printed_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "jwt"
    printed = antiphon(*ASKED, "--jwt", str(folder))
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert {each.stat().st_mode & 0o777 for each in [folder, *folder.rglob("*")] if each.is_dir()} == {0o700}
    seeds = {seed for file in files for seed in SEED.findall(file.read_text())}
    users, accounts = 8, 7  # with those of the servers' own account
    assert len(list(folder.glob("*.creds"))) == users
    assert len(list(folder.glob("accounts/*.jwt"))) == accounts
    assert len(seeds) == users + accounts + 1
    assert not [seed for seed in seeds if seed in printed.stdout + printed.stderr]
    assert not SEED.search(printed.stdout)


def test_keys_that_are_there_are_used_again(tmp_path: Path) -> None:
    first, again = (antiphon(*ASKED, *more, "--jwt", str(tmp_path)) for more in ((), ("--participant", "billing")))
    own = re.compile(r"^  (A\w+): .* # (\S+)$", re.MULTILINE)
    before, after = ({name: key for key, name in own.findall(ran.stdout)} for ran in (first, again))
    assert after == {**before, "PARTICIPANT-billing": after["PARTICIPANT-billing"]}
    assert len(after) == len(before) + 1


def test_the_operator_is_the_same_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a server would refuse to reload."""
    said = list[str]()
    for now in (1_800_000_000.0, 1_900_000_000.0):
        monkeypatch.setattr("time.time", lambda now=now: now)
        made = signed(Rights(["inventory"]), tmp_path)
        said += [line for line in made.config.splitlines() if line.startswith(("operator:", "system_account:"))]
        assert claims(made.accounts[PLATFORM])["iat"] == now
    assert said[:2] == said[2:]


async def test_what_was_there_before_is_there_after_a_restart_with_accounts_made_anew(tmp_path: Path) -> None:
    rights = Rights(["inventory"], {CLIENT: [EVERYTHING]})
    server, stored = Server(tmp_path / "nats", accounts=by_creds(rights, tmp_path).config), list[StoredMessage]()
    for _ in range(2):
        logins = by_creds(rights, tmp_path)
        server.accounts = logins.config
        with server:
            link = await Link.connect(server.url, name="test", credentials=logins.users["administrator"])
            await set_up(link, ["inventory"])
            stored = await link.read_all(EVENTS, [">"])
            if not stored:
                await link.store(start_subject(ORDER), b"{}")
            await link.close()
    assert [each.subject for each in stored] == [start_subject(ORDER)]


async def test_a_participant_that_comes_is_let_in_by_a_reload_and_an_operator_that_goes_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "jwt"
    before = by_creds(Rights(["inventory"], {"web": [Grant("order")]}, ["ada", "bob"]), folder)
    with Server(tmp_path / "nats", accounts=before.config) as server:
        bob = await Link.connect(server.url, name="bob", credentials=before.users["bob"])
        await bob.close()
        after = by_creds(Rights(["inventory", "billing"], {}, ["ada"]), folder)
        await reloaded(server, after.config)
        for user in ("billing", "inventory", "ada"):
            link = await Link.connect(server.url, name=user, credentials=after.users[user])
            await link.close()
        for user in ("bob", "web"):  # one of an account that is still there, one whose account is gone
            ran = antiphon("list", NATS_URL=server.url, **before.environment(user))
            assert "does not let this user in" in ran.stderr


REACH = Need(f"evt.*.*.*.{OPERATOR}.>", "ask for all that operators ask for")


class Reaching(Rights):
    """A participant's account that imports what is for operators."""

    def accounts(self) -> list[Account]:
        return [self._reaching(each) if each.name == "PARTICIPANT-inventory" else each for each in super().accounts()]

    def _reaching(self, account: Account) -> Account:
        (user,) = account.users
        users = (replace(user, publish=(*user.publish, REACH.subject)),)
        return replace(account, users=users, needs=(*account.needs, REACH))


@pytest.mark.parametrize("token", ["its own", "none", "another's"])
async def test_an_account_reaches_only_what_a_token_of_its_own_is_there_for(
    token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody who signs accounts by the same operator gets into the platform by importing what it exports."""

    def claimed(need: Need, account: str, *rest: Any) -> dict[str, Any]:
        whose = "OPERATORS" if need == REACH and token == "another's" else account
        claim = _import_claim(need, whose, *rest)
        return {**claim, "token": ""} if need == REACH and token == "none" else claim

    monkeypatch.setattr(operator_mode, "_import_claim", claimed)
    with platform(tmp_path, "jwt", rights=lambda given: Reaching(given.participants, given.clients)) as up:
        await up.set_up()
        if token == "another's":  # an account with such a token is none
            assert "does not let this user in" in antiphon("list", **up.environment("inventory")).stderr
            return
        link = await up.connect("inventory")
        forged = verb_subject(ORDER, "ada", "cancel", "k1")
        link.send(forged, b"{}", "", link.new_inbox())
        await link.flushed()
        await link.flushed()
        await link.close()
        administrator = await up.connect("administrator")
        found = [each.subject for each in await administrator.read_all(EVENTS, [">"])]
        await administrator.close()
    assert found == ([forged] if token == "its own" else [])


def test_both_forms_export_and_import_the_same(tmp_path: Path) -> None:
    rights = Rights(
        ["inventory", "billing"],
        {"web": [Grant("order")]},
        ["ada"],
        starts={"billing": ["refund"]},
        former_clients=["old"],
    )
    made, accounts = signed(rights, tmp_path), rights.accounts()
    exported = claims(made.accounts[PLATFORM])["nats"]["exports"]
    for each in exports(accounts):
        (wide,) = (
            it
            for it in exported
            if it["type"] == ("stream" if each.is_feed else "service") and matches(it["subject"], each.subject)
        )
        assert wide["token_req"]
        assert each.kind != "many" or wide["response_type"] == "Stream"
    for account in accounts:
        imported = claims(made.accounts[account.name])["nats"].get("imports", [])
        assert [(it["subject"], it["type"]) for it in imported] == [
            (need.subject, "stream" if need.kind == "feed" else "service") for need in account.needs
        ]
        for it in imported:
            token = claims(it["token"])
            assert token["sub"] == claims(made.accounts[account.name])["sub"]
            assert token["nats"]["subject"] == it["subject"]
        for user in account.users:
            found = claims(made.creds[user.name].split()[4])["nats"]
            assert (tuple(found["pub"]["allow"]), tuple(found["sub"]["allow"])) == (user.publish, user.subscribe)
            assert ("resp" in found) is user.may_answer


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--secrets", "x"), 2, "leave out --nkey and --secrets"),
        (("--client", "system=order"), 1, "'system' is the user of the servers' own account"),
    ],
)
def test_what_cannot_be_signed_is_refused(more: tuple[str, ...], code: int, said: str, tmp_path: Path) -> None:
    ran = antiphon(*ASKED, *more, "--jwt", str(tmp_path / "jwt"))
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in ran.stderr
    assert not (tmp_path / "jwt").exists()


@pytest.mark.parametrize("text", ["", "S", "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY", "é" * 58])
def test_a_file_that_is_no_key_is_a_sentence_that_does_not_show_it(text: str, tmp_path: Path) -> None:
    file = tmp_path / KEYS / "operator.nk"
    file.parent.mkdir()
    file.write_text(text)
    ran = antiphon(*ASKED, "--jwt", str(tmp_path))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"{file} has no seed of an operator's key." in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not text or text not in ran.stderr or text == "S"


def test_a_folder_that_cannot_be_written_is_a_sentence() -> None:
    ran = antiphon(*ASKED, "--jwt", __file__)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"cannot write secrets to {__file__}" in ran.stderr


def test_a_key_is_made_once_and_never_shown(tmp_path: Path) -> None:
    first, again = (kept_key(tmp_path / "a.nk", "ACCOUNT") for _ in range(2))
    assert first == again
    assert first.seed not in repr(first)


@pytest.mark.parametrize("body", ["", "e30", "bnVsbA", "eyJuYW1lIjogN30", "!", "a"])
def test_creds_that_name_nobody_are_taken_as_such(body: str) -> None:
    assert user_in(f"-----BEGIN NATS USER JWT-----\na.{body}.c\n------END NATS USER JWT------\n") == ""
    assert user_in(body) == ""


def test_who_asks_is_the_user_of_the_creds_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from antiphon.deploy.cli.operating import who_asks

    logins = by_creds(Rights(["inventory"], {}, ["ada"]), tmp_path)
    for name in [name for name in os.environ if name.startswith("NATS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NATS_CREDS", logins.environment("ada")["NATS_CREDS"])
    assert who_asks() == "ada"

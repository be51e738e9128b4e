"""The accounts of `rights.py` as NATS' operator mode has them: signed by keys, instead of lines of the configuration.

The rights are the same, and come from the same accounts. Two things are said in another way, since the server wants it:

- An export names nobody who may import it. It asks for a token, which the platform's account signs for one subject and
  one account, and which stands beside the import.
- No export may lie within another one. A subject that does is exported by the wider one; the token covers it alone.

Whoever holds the keys can make any user, so `keys/` is for the administrator alone. No server needs it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from antiphon.contracts import subjects
from antiphon.contracts.errors import DefinitionError

from ..files import make_private, nats_string, write_private
from .rights import PLATFORM, Account, Export, Need, Rights, User, exports
from .tokens import Key, creds, kept_key

SYSTEM: Final = "SYS"
"""The servers' own account, which operator mode cannot be without."""
SYSTEM_USER: Final = "system"
"""Its one user. With it accounts can be sent to servers that keep them, instead of reading them at their start."""
KEYS: Final = "keys"
KEY_ENDING: Final = ".nk"

NO_LIMIT: Final = -1
OF_USERS: Final = {"subs": NO_LIMIT, "data": NO_LIMIT, "payload": NO_LIMIT}
OF_ACCOUNTS: Final = {
    **OF_USERS,
    **dict.fromkeys(("imports", "exports", "conn", "leaf"), NO_LIMIT),
    "wildcards": True,
}
"""As in accounts that stand in the configuration: the servers' own limits hold, and no others."""
OF_STREAMS: Final = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), NO_LIMIT)
"""For the account that has the streams. Without them an account has no JetStream."""

SINCE: Final = 1_767_225_600
"""The date of the operator's JWT, in seconds since 1970. It never changes: a server that is to reload refuses another
operator, and the same operator with another date is another one."""

ANSWERS: Final = {"max": 1, "ttl": 120_000_000_000}
"""What `allow_responses: true` means in a configuration: one answer, within two minutes (in nanoseconds)."""


@dataclass(frozen=True)
class Signed:
    """Accounts and users, signed.

    Args:
        config: the text for nats.conf, which holds no secrets.
        accounts: the JWT of each account, by its name.
        creds: the text of each user's creds file, by its name. These are secrets.
    """

    config: str
    accounts: Mapping[str, str]
    creds: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Signed({', '.join(self.creds)})"


def signed(rights: Rights, folder: Path) -> Signed:
    """Sign everything with the keys of a folder; those that are missing are made there.

    Users of an account that are among the keys and no longer among the rights are refused from now on.

    Args:
        rights: who may do what.
        folder: where the keys are, below `keys`.

    Raises:
        DefinitionError: a user has the name of the system's.
        PlatformError: a file there is no key, or the extra `nkeys` is not installed.
        OSError: a file cannot be read or written.
    """
    if SYSTEM_USER in rights.users():
        raise DefinitionError(f"{SYSTEM_USER!r} is the user of the servers' own account. Give yours another name.")
    keys = _Keys(folder / KEYS)
    accounts = rights.accounts()
    operator, public = keys.operator, {each.name: keys.account(each.name).public for each in accounts}
    system = Account(SYSTEM, (User(SYSTEM_USER, (">",), (">",)),))
    tokens = {
        each.name: operator.sign(
            keys.account(each.name).public, each.name, _account_claims(each, accounts, keys, public[PLATFORM])
        )
        for each in (*accounts, system)
    }
    files = {
        user.name: creds(
            keys.account(each.name).sign(keys.user(each.name, user.name).public, user.name, _user_claims(user)),
            keys.user(each.name, user.name),
        )
        for each in (*accounts, system)
        for user in each.users
    }
    return Signed(_config(keys, tokens), tokens, files)


def write_signed(folder: Path, made: Signed) -> list[Path]:
    """Write a creds file for each user, readable by its owner only, and the JWT of each account.

    Raises:
        OSError: a file cannot be written.
    """
    files = {folder / f"{user}.creds": text for user, text in made.creds.items()}
    files |= {folder / "accounts" / f"{name}.jwt": f"{text}\n" for name, text in made.accounts.items()}
    for path, text in files.items():
        make_private(path.parent)
        write_private(path, text)
    return list(files)


@dataclass(frozen=True)
class _Keys:
    """The keys of a folder: the operator's, and of each account its own and those of its users."""

    folder: Path

    @property
    def operator(self) -> Key:
        return kept_key(self.folder / f"operator{KEY_ENDING}", "OPERATOR")

    def account(self, account: str) -> Key:
        return kept_key(self.folder / account / f"account{KEY_ENDING}", "ACCOUNT")

    def user(self, account: str, user: str) -> Key:
        return kept_key(self._users(account) / f"{user}{KEY_ENDING}", "USER")

    def former_users(self, account: Account) -> list[str]:
        """The public keys of those who were users of the account."""
        now = {user.name for user in account.users}
        files = sorted(self._users(account.name).glob(f"*{KEY_ENDING}"))
        return [kept_key(file, "USER").public for file in files if file.stem not in now]

    def _users(self, account: str) -> Path:
        return self.folder / account / "users"


# --- what is claimed --------------------------------------------------------------------------------------------------


def _account_claims(account: Account, accounts: Iterable[Account], keys: _Keys, platform: str) -> dict[str, Any]:
    claims: dict[str, Any] = {"type": "account", "limits": dict(OF_ACCOUNTS)}
    if account.name == PLATFORM:
        claims["limits"] |= OF_STREAMS
        claims["exports"] = [_export_claim(each) for each in _widest(exports(accounts))]
    if account.needs:
        claims["imports"] = [_import_claim(need, account.name, keys, platform) for need in account.needs]
    if former := keys.former_users(account):
        claims["revocations"] = dict.fromkeys(former, int(time.time()))
    return claims


def _widest(found: Iterable[Export]) -> list[Export]:
    """The exports that lie within no other one of their type, each answering as often as any within it."""
    kept: list[Export] = []
    for each in found:
        alike = [other for other in found if other.is_feed == each.is_feed]
        if any(_lies_within(each, other) for other in alike):
            continue
        many = any(other.kind == "many" for other in alike if other == each or _lies_within(other, each))
        kept.append(Export(each.subject, "many" if many else each.kind, each.takers))
    return kept


def _lies_within(one: Export, other: Export) -> bool:
    return one.subject != other.subject and subjects.matches(other.subject, one.subject)


def _export_claim(export: Export) -> dict[str, Any]:
    claim: dict[str, Any] = {"subject": export.subject, "type": _type(export.is_feed), "token_req": True}
    if not export.is_feed:
        claim["response_type"] = "Stream" if export.kind == "many" else "Singleton"
    return claim


def _import_claim(need: Need, account: str, keys: _Keys, platform: str) -> dict[str, Any]:
    kind = _type(need.kind == "feed")
    allowed = {"type": "activation", "subject": need.exported, "kind": kind}
    token = keys.account(PLATFORM).sign(keys.account(account).public, need.why, allowed)
    claim = {"name": need.why, "subject": need.exported, "account": platform, "token": token, "type": kind}
    return claim | {"local_subject": need.local} if need.to else claim


def _type(is_feed: bool) -> str:
    return "stream" if is_feed else "service"


def _user_claims(user: User) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "type": "user",
        "pub": {"allow": list(user.publish)},
        "sub": {"allow": list(user.subscribe)},
        **OF_USERS,
    }
    return claims | {"resp": ANSWERS} if user.may_answer else claims


# --- as the server's configuration ------------------------------------------------------------------------------------

_HEAD = (
    "# Made by `antiphon rights --jwt`: make it anew when a participant comes or goes, then have the server reload it.",
    "# It holds no secrets: what is signed here can be read by anybody, and made by nobody without the keys.",
)

CONTROL_LINE: Final = "64KB"
"""How long the line may be with which a client says who it is. The line has all rights of its user, and a coordinator
has some for each participant: with ten of them they may be more than the server's default, 4 kB."""


def _config(keys: _Keys, tokens: Mapping[str, str]) -> str:
    system = keys.account(SYSTEM).public
    operator = keys.operator
    said = operator.sign(operator.public, "antiphon", {"type": "operator", "system_account": system}, SINCE)
    lines = [f"  {keys.account(name).public}: {nats_string(token)} # {name}" for name, token in tokens.items()]
    return "\n".join(
        [
            *_HEAD,
            f"operator: {nats_string(said)}",
            f"system_account: {system}",
            f"max_control_line: {CONTROL_LINE}",
            "resolver: MEMORY",
            "resolver_preload {",
            *lines,
            "}",
            "",
        ]
    )

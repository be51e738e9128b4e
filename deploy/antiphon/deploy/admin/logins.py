"""How the users of one server log in: by passwords, or by creds files in operator mode; with TLS if wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import msgspec

from antiphon.link import Credentials

from .operator_mode import signed, write_signed
from .rights import Rights, server_environment


@dataclass(frozen=True)
class Logins:
    """What a server is told of its users, and what the users are told.

    Args:
        config: the text for nats.conf.
        server: variables of the server's environment, to which the text refers.
        users: how each user logs in, by its name. What stands there is a secret, or names a file that is one.
    """

    config: str
    server: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    users: Mapping[str, Credentials] = field(default_factory=dict[str, Credentials])

    def environment(self, user: str) -> dict[str, str]:
        """The variables with which a process logs in."""
        given = self.users[user]
        variables = {
            "NATS_USER": given.user,
            "NATS_PASSWORD": given.password,
            "NATS_CREDS": given.creds_file,
            "NATS_CA": given.ca_file,
            "NATS_CERT": given.cert_file,
            "NATS_KEY": given.key_file,
        }
        return {name: value for name, value in variables.items() if value is not None}

    def encrypted(self, ca_file: str, cert_file: str, config: str) -> Logins:
        """The same with TLS.

        Args:
            ca_file: the certificates that vouch for the server.
            cert_file: what all users show of themselves, with its key.
            config: what the server is told of TLS.
        """
        users = {
            name: msgspec.structs.replace(each, ca_file=ca_file, cert_file=cert_file)
            for name, each in self.users.items()
        }
        return replace(self, config=f"{config}\n{self.config}", users=users)


NOBODY = Logins("", MappingProxyType({}), MappingProxyType({}))
"""Of a server that lets everybody in."""


def by_password(rights: Rights) -> Logins:
    """Fresh passwords, and the accounts in the server's configuration."""
    passwords = rights.new_passwords()
    users = {name: Credentials(user=name, password=password) for name, password in passwords.items()}
    return Logins(rights.config(), server_environment(passwords), users)


def by_creds(rights: Rights, folder: Path) -> Logins:
    """Creds files, and accounts that are signed.

    Args:
        rights: who may do what.
        folder: where keys and creds files are; they survive, so that the streams stay those of the same account.

    Raises:
        PlatformError: a file there is no key, or the extra `nkeys` is not installed.
        OSError: a file cannot be read or written.
    """
    made = signed(rights, folder)
    write_signed(folder, made)
    return Logins(
        made.config, users={user: Credentials(creds_file=str(folder / f"{user}.creds")) for user in made.creds}
    )

"""Certificates for tests: servers and users show each other one of the same authority."""

from __future__ import annotations

from pathlib import Path

import trustme

from antiphon.deploy.admin.logins import Logins
from antiphon.deploy.local.server import HOST


class MutualTLS:
    """Nobody connects without a certificate, to a server that has none.

    Args:
        folder: where the files go.
    """

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca, self.shown = str(folder / "ca.pem"), str(folder / "shown.pem")
        authority.cert_pem.write_to_path(self.ca)
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(self.shown)
        self.config = f'cert_file: "{self.shown}", key_file: "{self.shown}", ca_file: "{self.ca}", verify: true'
        """What a server's block `tls` holds, for clients as for peers."""

    def of(self, logins: Logins) -> Logins:
        """The same logins, encrypted."""
        return logins.encrypted(self.ca, self.shown, f"tls {{ {self.config} }}")

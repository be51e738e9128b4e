"""Certificates for tests: servers and users show each other one of the same authority."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trustme

from antiphon.deploy.admin.logins import Logins
from antiphon.deploy.local.server import HOST


def mutual_tls(folder: Path) -> Callable[[Logins], Logins]:
    """What changes logins so that no connection is let in without a certificate, servers among each other neither."""
    authority = trustme.CA()
    ca, shown = str(folder / "ca.pem"), str(folder / "shown.pem")
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(shown)
    tls = f'tls {{ cert_file: "{shown}", key_file: "{shown}", ca_file: "{ca}", verify: true }}'
    return lambda logins: logins.encrypted(ca, shown, tls)

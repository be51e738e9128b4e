"""What a check has found, and what all checks are given."""

from __future__ import annotations

from typing import Literal

import msgspec

from antiphon.link import Credentials, Link

Grade = Literal["fault", "warning", "fine", "unknown"]
"""A fault keeps sagas from their end, or is about to. `unknown` is what could not be looked at."""


class Finding(msgspec.Struct, frozen=True):
    """One sentence about a deployment."""

    check: str
    grade: Grade
    what: str
    remedy: str = ""


class Deployment(msgspec.Struct, frozen=True):
    """What is looked at.

    Args:
        link: a connection with an administrator's rights.
        servers: the URLs that it was made with.
        credentials: those of the administrator.
        monitors: URLs of the servers' monitoring pages.
    """

    link: Link
    servers: tuple[str, ...]
    credentials: Credentials
    monitors: tuple[str, ...] = ()

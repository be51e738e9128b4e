"""What a check has found, and what all checks are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from antiphon.link import Credentials, Link

from ..rights import Grant

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
        rights_folder: where `antiphon rights` wrote the users' credentials; empty where rights are not tried.
        clients: what clients may do, by their names.
        operators: the operators' names.
        starts: the types of the sagas that a participant's program starts, by its name.
        databases: URLs of participants' databases, by the participants' names.
        readmodel: the URL of the read model's database; empty where there is none to look at.
    """

    link: Link
    servers: tuple[str, ...]
    credentials: Credentials
    monitors: tuple[str, ...] = ()
    rights_folder: str = ""
    clients: Mapping[str, Sequence[Grant]] = {}
    operators: tuple[str, ...] = ()
    starts: Mapping[str, Sequence[str]] = {}
    databases: Mapping[str, str] = {}
    readmodel: str = ""

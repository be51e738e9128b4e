"""What a check has found, and what all checks are given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

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


SHIELDED: Final = re.compile(r"'[^']*'|`[^`]*`|\([^()]*\)")
"""What is quoted or stands in brackets: a full stop in it ends no sentence."""
SENTENCE_END: Final = re.compile(r"(?<!\b\w)(?<!\betc)(?<!\.\w)\. (?=[A-Z`'])")
"""A full stop before a capital letter, but for those of abbreviations."""


def in_two(text: str) -> tuple[str, str]:
    """The first sentence of an error, and the others, which say what mends it; these are empty where there is one."""
    shielded = SHIELDED.sub(lambda found: "x" * len(found[0]), text)
    end = SENTENCE_END.search(shielded)
    return (text[: end.start()], text[end.end() :]) if end else (text, "")


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

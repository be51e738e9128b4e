"""`antiphon doctor`: what a deployment lacks, told while it is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import typer

from antiphon.contracts.counting import counted
from antiphon.contracts.errors import AntiphonError, BadIdentity, DefinitionError, PlatformError
from antiphon.link import Credentials, Link
from antiphon.link.pairs import find_pairs
from antiphon.participants.engines import require_driver

from ..admin.doctor.examination import USER, Check, examine, is_administrator
from ..admin.doctor.findings import Deployment, Finding, Grade, in_two
from ..admin.doctor.roles import credentials_in, rights_of
from ..admin.doctor.streams import participants_of
from ..admin.rights import Grant
from ..render.terminal import console, parts, say_json

STYLES: Final[dict[Grade, str]] = {"fault": "bold red", "warning": "yellow", "fine": "green", "unknown": "dim"}
WIDTH: Final = max(map(len, STYLES))


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a person wants looked at beside the servers. See `Deployment`."""

    monitors: tuple[str, ...] = ()
    rights_folder: str = ""
    clients: Mapping[str, Sequence[Grant]] = {}
    operators: tuple[str, ...] = ()
    starts: Mapping[str, Sequence[str]] = {}
    databases: Mapping[str, str] = {}
    readmodel: str = ""


async def diagnose(server: str, asked: Asked, as_json: bool) -> bool:
    """Print what was found; whether there is no fault, and this user may look at everything.

    Raises:
        BadParameter: something is named that is not there.
    """
    _require_folder(asked)
    servers, credentials = tuple(each.strip() for each in server.split(",")), Credentials.from_environment()
    found = list[Finding]()
    try:
        link = await Link.connect(list(servers), name="doctor", credentials=credentials, patient=False)
    except AntiphonError as error:
        sentence, remedy = in_two(str(error))
        found.append(Finding("server", "fault", sentence, remedy))
        _tell(found[0], as_json)
    else:
        try:
            await find_pairs(link)
            deployment = Deployment(link, servers, credentials, **msgspec.structs.asdict(asked))
            await _require_names(deployment)
            async for finding in examine(deployment, _more(asked)):
                found.append(finding)
                _tell(finding, as_json)
        finally:
            await link.close()
    counts = Counter(each.grade for each in found)
    if as_json:
        say_json({"findings": found, **{grade: counts[grade] for grade in STYLES}})
    else:
        console().print(
            f"{counted(counts['fault'], 'fault')}, {counted(counts['warning'], 'warning')}, {counts['fine']} fine, "
            f"{counts['unknown']} not looked at"
        )
    return not counts["fault"] and not any(each.check == USER for each in found)


def _require_folder(asked: Asked) -> None:
    """Check that the credentials are there of those whose rights are to be tried.

    Raises:
        BadParameter: they are not.
    """
    if asked.rights_folder:
        try:
            credentials_in(Path(asked.rights_folder), Credentials())
        except PlatformError as error:
            raise typer.BadParameter(str(error), param_hint="--rights") from None
    elif asked.clients or asked.operators or asked.starts:
        raise typer.BadParameter(
            "--client, --operator and --participant say what users may do whose credentials are in a folder: name "
            "that, too, with --rights FOLDER."
        )


async def _require_names(found: Deployment) -> None:
    """Check that the participants that are named are set up, and that all who are named can be users of one platform.

    Raises:
        BadParameter: they are not, or cannot be.
    """
    is_named = found.starts or found.databases or found.clients or found.operators
    if not is_named or not await is_administrator(found.link):
        return
    known = await participants_of(found.link)
    for option, names in (("--participant", found.starts), ("--database", found.databases)):
        if known and (strangers := sorted(names.keys() - set(known))):
            raise typer.BadParameter(
                f"no participant {strangers[0]} is set up; those that are: {', '.join(known)}.", param_hint=option
            )
    try:
        rights_of(found, known or sorted(found.starts))
    except (BadIdentity, DefinitionError) as error:
        raise typer.BadParameter(f"there can be no such users: {error}") from None


def _more(asked: Asked) -> dict[str, Check]:
    """The check of the read model, which imports SQLAlchemy, where it is wanted."""
    if not asked.readmodel:
        return {}
    require_driver(asked.readmodel)
    from ..readmodel.examined import readmodel

    return {"readmodel": readmodel}


def _tell(finding: Finding, as_json: bool) -> None:
    if as_json:
        return
    grade = f"{finding.grade:<{WIDTH}}", STYLES[finding.grade]
    console().print(parts(grade, f"  {finding.check}: {finding.what}"), soft_wrap=True)
    if finding.remedy:
        console().print(parts(f"{'':<{WIDTH}}  → {finding.remedy}"), soft_wrap=True)

"""`antiphon doctor`: what a deployment lacks, told while it is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from antiphon.contracts.errors import AntiphonError
from antiphon.link import Credentials, Link

from ..admin.doctor.examination import examine
from ..admin.doctor.findings import Deployment, Finding, Grade
from ..render.terminal import console, parts, say_json

STYLES: Final[dict[Grade, str]] = {"fault": "bold red", "warning": "yellow", "fine": "green", "unknown": "dim"}
WIDTH: Final = max(map(len, STYLES))


async def diagnose(server: str, monitors: Sequence[str], as_json: bool) -> bool:
    """Print what was found; whether there is no fault."""
    servers, credentials = tuple(each.strip() for each in server.split(",")), Credentials.from_environment()
    found = list[Finding]()
    try:
        link = await Link.connect(list(servers), name="doctor", credentials=credentials, patient=False)
    except AntiphonError as error:
        sentence, _, remedy = str(error).partition(". ")
        found.append(Finding("server", "fault", sentence, remedy))
        _tell(found[0], as_json)
    else:
        try:
            async for finding in examine(Deployment(link, servers, credentials, tuple(monitors))):
                found.append(finding)
                _tell(finding, as_json)
        finally:
            await link.close()
    counts = Counter(each.grade for each in found)
    if as_json:
        say_json({"findings": found, **{grade: counts[grade] for grade in STYLES}})
    else:
        console().print(
            f"{_counted(counts['fault'], 'fault')}, {_counted(counts['warning'], 'warning')}, {counts['fine']} fine, "
            f"{counts['unknown']} not looked at"
        )
    return not counts["fault"]


def _tell(finding: Finding, as_json: bool) -> None:
    if as_json:
        return
    grade = f"{finding.grade:<{WIDTH}}", STYLES[finding.grade]
    console().print(parts(grade, f"  {finding.check}: {finding.what}"), soft_wrap=True)
    if finding.remedy:
        console().print(parts(f"{'':<{WIDTH}}  → {finding.remedy}"), soft_wrap=True)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

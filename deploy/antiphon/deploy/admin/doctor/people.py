"""What waits for a person."""

from __future__ import annotations

from antiphon.coordinator.reading.parked import waiting
from antiphon.coordinator.reading.pauses import read_pauses

from .findings import Deployment, Finding


async def parked(found: Deployment) -> list[Finding]:
    """Sagas in which something keeps failing, and messages that nobody could use."""
    entries = await waiting(found.link)
    sagas = {each.saga for each in entries if each.kind == "saga"}
    findings = list[Finding]()
    if sagas:
        remedy = "antiphon parked, then retry, edit or resolve: deploy/docs/operating.md"
        findings.append(Finding("parked", "warning", f"sagas that wait for a person: {len(sagas)}", remedy))
    if messages := len([each for each in entries if each.kind not in ("saga", "paused")]):
        remedy = "antiphon parked, then dismiss or resend"
        findings.append(Finding("parked", "warning", f"messages that nobody could use: {messages}", remedy))
    return findings or [Finding("parked", "fine", "nothing waits for a person")]


async def paused(found: Deployment) -> list[Finding]:
    """Saga types and participants that somebody has paused."""
    pauses = await read_pauses(found.link)
    return [
        Finding("paused", "warning", f"{what} {name} is {pause.paused}", f"antiphon resume {option} {name}")
        for what, option, names in (
            ("saga type", "--type", pauses.types),
            ("participant", "--participant", pauses.participants),
        )
        for name, pause in names.items()
    ]

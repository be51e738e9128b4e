"""The order system in its three styles, as the command line runs it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

SERVICES: Final = ("inventory", "billing", "shipping")


class Style(StrEnum):
    """Who decides what comes next: coordinators, nobody, or partly one and partly the other."""

    ORCHESTRATED = "orchestrated"
    CHOREOGRAPHED = "choreographed"
    HYBRID = "hybrid"

    @property
    def saga(self) -> str:
        """Where the saga or choreography is defined, as `module:attribute`."""
        return {
            Style.ORCHESTRATED: "antiphon.order.saga:order",
            Style.CHOREOGRAPHED: "antiphon.order.choreographed.saga:choreographed_order",
            Style.HYBRID: "antiphon.order.hybrid.saga:hybrid_order",
        }[self]

    @property
    def participants(self) -> dict[str, str]:
        """Where the services are that take part in it, by their names."""
        special: dict[Style, tuple[str, ...]] = {
            Style.ORCHESTRATED: (),
            Style.CHOREOGRAPHED: SERVICES,
            Style.HYBRID: ("billing", "shipping"),
        }
        return {
            name: f"antiphon.order.{self.value + '.' if name in special[self] else ''}{name}:{name}"
            for name in SERVICES
        }

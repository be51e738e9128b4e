"""Chaos tests: a team's platform as processes that a test kills, stops and cuts off, and the check of what is left."""

from typing import TYPE_CHECKING

from antiphon.contracts.lazy import on_demand

if TYPE_CHECKING:
    from .evidence import Effect
    from .loads import Load, Planned
    from .platform import ChaosPlatform, Settings
else:
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "ChaosPlatform": ".platform",
            "Effect": ".evidence",
            "Load": ".loads",
            "Planned": ".loads",
            "Settings": ".platform",
        },
    )

__all__ = ["ChaosPlatform", "Effect", "Load", "Planned", "Settings"]

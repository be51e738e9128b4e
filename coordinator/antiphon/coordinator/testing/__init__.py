"""For the tests of those who write sagas: a definition told in sentences, and whole sagas in memory in virtual time."""

from typing import TYPE_CHECKING

from antiphon.contracts.lazy import on_demand

if TYPE_CHECKING:
    from .rehearsal import Rehearsal, Rehearsed, rehearse
    from .scenario import Scenario, given
else:
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "Rehearsal": ".rehearsal",
            "Rehearsed": ".rehearsal",
            "Scenario": ".scenario",
            "given": ".scenario",
            "rehearse": ".rehearsal",
        },
    )

__all__ = ["Rehearsal", "Rehearsed", "Scenario", "given", "rehearse"]

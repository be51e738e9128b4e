"""For the tests of those who write sagas: a definition told in sentences, and whole sagas in memory in virtual time."""

from .rehearsal import Rehearsal, Rehearsed, rehearse
from .scenario import Scenario, given

__all__ = ["Rehearsal", "Rehearsed", "Scenario", "given", "rehearse"]

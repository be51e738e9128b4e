"""For the tests of those who write sagas: a definition alone, told in sentences."""

from .scenario import Scenario, given

__all__ = ["Scenario", "given"]

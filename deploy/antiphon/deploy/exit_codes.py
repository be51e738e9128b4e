"""Exit codes of the command line beyond 1, which is a failure that a sentence tells."""

from __future__ import annotations

from typing import Final

USAGE: Final = 2
"""Options or settings are wrong: nothing was begun."""
UNDECIDED: Final = 3
"""A request is stored, and may still be fulfilled or rejected."""
UNSOUND: Final = 4
"""An author must mend something, such as a definition or changed contracts: a process started again would end again."""
DIFFERS: Final = 5
"""A dry run has found something to change, and nothing that speaks against it."""

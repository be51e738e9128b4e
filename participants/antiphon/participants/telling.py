"""What the log says of a failed attempt: the reason, and where in the author's code it was raised."""

from __future__ import annotations

import sysconfig
import traceback
from types import TracebackType
from typing import Any, Final

from .reasons import is_said_on_purpose

OURS: Final = ("antiphon.participants.", "antiphon.contracts.", "antiphon.link.")
_INSTALLED: Final = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")})

_Trace = dict[str, Any]


class Telling:
    """One traceback an attempt, found by the saga, the step and the attempt that the journal names."""

    def of(self, message: str, reason: str, error: BaseException) -> _Trace | None:
        """What a line of the log has beside the reason; None where there is to be no line.

        Args:
            message: what was attempted.
            reason: why it failed.
            error: the same, as it was raised.
        """
        return {} if is_said_on_purpose(error) else {"exc_info": error}


class BriefTelling(Telling):
    """For a developer who looks at one test: the author's own frames, once for each error of each step. A typo in a
    handler is the same in each attempt, and between the attempts of a rehearsal no time passes."""

    def __init__(self) -> None:
        self._told = set[tuple[str, str]]()

    def of(self, message: str, reason: str, error: BaseException) -> _Trace | None:
        """As above, the first time; None from then on."""
        step = message.rpartition(".")[0]  # its last part is the number of the attempt
        if (step, reason) in self._told:
            return None
        self._told.add((step, reason))
        if is_said_on_purpose(error):
            return {}
        own = authors_traceback(error)
        return {"exception": own} if own else {"exc_info": error}


def authors_traceback(error: BaseException) -> str:
    """Where in the author's code an error was raised, without the frames of libraries; empty where no frame is left."""
    frames = list[traceback.FrameSummary]()
    found: TracebackType | None = error.__traceback__
    while found is not None:
        code, module = found.tb_frame.f_code, str(found.tb_frame.f_globals.get("__name__", ""))
        if not module.startswith(OURS) and not code.co_filename.startswith(_INSTALLED):
            frames += traceback.extract_tb(found, limit=1)
        found = found.tb_next
    if not frames:
        return ""
    lines = ["Traceback of the handler (most recent call last):\n", *traceback.format_list(frames)]
    return "".join([*lines, *traceback.format_exception_only(error)]).rstrip()

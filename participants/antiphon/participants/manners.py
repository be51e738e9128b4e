"""Which commands are committed together with others: all but those whose handlers keep the others waiting."""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog

from .calling import LOOK_SECONDS, Watch
from .execution import Execution

log = structlog.get_logger()

SLOW_LOOKS: Final = 1000
"""How many looks a slow handler may take before it is pointed out: five seconds, in which nobody else can write."""

Kind = tuple[str, str]
"""The type of a message, and whether it is done or undone."""


class Manners:
    """How the transactions of each kind of command are kept apart, as one worker has learnt it.

    Args:
        participant: the name of whose commands these are.
        shares: whether its database commits commands together.
    """

    def __init__(self, participant: str, shares: bool) -> None:
        self._participant, self._shares = participant, shares
        self._own = set[Kind]()
        """What has kept others waiting once."""
        self._watch = Watch()
        self._slow_watch = Watch(SLOW_LOOKS)

    def set(self, execution: Execution, message_type: str) -> None:
        """Say how a command is to be performed, and have its handler watched where others wait for it.

        Args:
            execution: of the command.
            message_type: its type.
        """
        kind = (message_type, execution.address.direction)
        if execution.procedure.is_slow:
            execution.manner = "slow"
            if self._shares:
                execution.watch, execution.on_wait = self._slow_watch, partial(self._say_long, kind, execution)
        elif execution.procedure.is_outside:
            if self._shares and kind not in self._own:
                execution.watch, execution.on_wait = self._watch, partial(self._say_early, kind, execution)
        elif kind in self._own:
            execution.manner = "own"
        elif self._shares:
            execution.watch, execution.on_wait = self._watch, partial(self._keep_apart, kind, execution)

    def _keep_apart(self, kind: Kind, execution: Execution) -> None:
        """The handler waits for something else than its transaction, and others wait for that. Once is enough."""
        if kind in self._own:
            return
        self._own.add(kind)
        self._point_out(
            "handler.waits",
            kind,
            execution,
            "it holds the only write lock of its database meanwhile, and is committed by itself from now on; declare "
            "it outside=True if it calls another service, or slow=True if its statements take long",
        )

    def _say_early(self, kind: Kind, execution: Execution) -> None:
        """A handler with effects outside has begun its transaction before all that it waits for. Once is enough."""
        self._own.add(kind)
        self._point_out(
            "handler.began_early",
            kind,
            execution,
            "it waits inside its transaction, and holds the only write lock of its database meanwhile; call begin() "
            "after everything else that it awaits",
        )

    def _say_long(self, kind: Kind, execution: Execution) -> None:
        """A slow handler has had the database to itself for long."""
        self._point_out(
            "handler.holds",
            kind,
            execution,
            f"it has held the only write lock of its database for {SLOW_LOOKS * LOOK_SECONDS:g} s, and all other "
            "commands of its participant wait; declare it outside=True if it calls another service",
        )

    def _point_out(self, event: str, kind: Kind, execution: Execution, advice: str) -> None:
        log.warning(
            event,
            participant=self._participant,
            type=kind[0],
            direction=kind[1],
            saga=str(execution.address.saga),
            step=execution.address.step,
            stands_at=execution.call.whereabouts(),
            advice=advice,
        )

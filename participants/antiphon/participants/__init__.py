"""A service's part in sagas: its handlers, its inbox, and the worker that runs them."""

from typing import TYPE_CHECKING

from antiphon.contracts.lazy import on_demand

if TYPE_CHECKING:
    from .databases import Database, open_database
    from .participant import Participant
    from .serve import serve
    from .transaction import Outside, Transaction
    from .worker import Worker
else:
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "Database": ".databases",
            "Participant": ".participant",
            "Outside": ".transaction",
            "Transaction": ".transaction",
            "Worker": ".worker",
            "open_database": ".databases",
            "serve": ".serve",
        },
    )

__all__ = ["Database", "Outside", "Participant", "Transaction", "Worker", "open_database", "serve"]

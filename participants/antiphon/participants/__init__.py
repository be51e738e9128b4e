"""A service's part in sagas: its handlers, its inbox, and the worker that runs them."""

from .databases import Database, open_database
from .participant import Participant
from .serve import serve
from .transaction import Transaction
from .worker import Worker

__all__ = ["Database", "Participant", "Transaction", "Worker", "open_database", "serve"]

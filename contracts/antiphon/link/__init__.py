"""One connection to NATS, made for many small messages: frames, synchronous handlers, standing pulls, direct reads."""

from typing import TYPE_CHECKING

from antiphon.contracts.lazy import on_demand

if TYPE_CHECKING:
    from antiphon.contracts.stored import AlreadyStored, NobodyReads, NobodyStores, Outcome, Rejected, StoredMessage

    from .applying import set_up
    from .collector import settle_collector
    from .connection import Credentials, Link
    from .delivery import Delivery, Pull
    from .guard import Guard, InHand
    from .setup import require_accepted, require_platform
    from .tail import Mark, OtherStream, Reads, Tail
else:
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "AlreadyStored": "antiphon.contracts.stored",
            "Credentials": ".connection",
            "Delivery": ".delivery",
            "Guard": ".guard",
            "InHand": ".guard",
            "Link": ".connection",
            "Mark": ".tail",
            "NobodyReads": "antiphon.contracts.stored",
            "NobodyStores": "antiphon.contracts.stored",
            "OtherStream": ".tail",
            "Outcome": "antiphon.contracts.stored",
            "Pull": ".delivery",
            "Reads": ".tail",
            "Rejected": "antiphon.contracts.stored",
            "StoredMessage": "antiphon.contracts.stored",
            "Tail": ".tail",
            "require_accepted": ".setup",
            "require_platform": ".setup",
            "set_up": ".applying",
            "settle_collector": ".collector",
        },
    )

__all__ = [
    "AlreadyStored",
    "Credentials",
    "Delivery",
    "Guard",
    "InHand",
    "Link",
    "Mark",
    "NobodyReads",
    "NobodyStores",
    "OtherStream",
    "Outcome",
    "Pull",
    "Reads",
    "Rejected",
    "StoredMessage",
    "Tail",
    "require_accepted",
    "require_platform",
    "set_up",
    "settle_collector",
]

"""One connection to NATS, made for many small messages: frames, synchronous handlers, standing pulls, direct reads."""

from typing import TYPE_CHECKING

from antiphon.contracts.lazy import on_demand

if TYPE_CHECKING:
    from .collector import settle_collector
    from .delivery import Delivery, Pull
    from .guard import Guard, InHand
    from .link import Credentials, Link
    from .outcomes import AlreadyStored, NobodyStores, Outcome, Rejected
    from .reading import StoredMessage
    from .setup import require_accepted, require_platform, set_up
    from .tail import Mark, OtherStream, Tail
else:
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "AlreadyStored": ".outcomes",
            "Credentials": ".link",
            "Delivery": ".delivery",
            "Guard": ".guard",
            "InHand": ".guard",
            "Link": ".link",
            "Mark": ".tail",
            "NobodyStores": ".outcomes",
            "OtherStream": ".tail",
            "Outcome": ".outcomes",
            "Pull": ".delivery",
            "Rejected": ".outcomes",
            "StoredMessage": ".reading",
            "Tail": ".tail",
            "require_accepted": ".setup",
            "require_platform": ".setup",
            "set_up": ".setup",
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
    "NobodyStores",
    "OtherStream",
    "Outcome",
    "Pull",
    "Rejected",
    "StoredMessage",
    "Tail",
    "require_accepted",
    "require_platform",
    "set_up",
    "settle_collector",
]

"""One connection to NATS, made for many small messages: frames, synchronous handlers, standing pulls, direct reads."""

from .collector import settle_collector
from .delivery import Delivery, Pull
from .guard import Guard, InHand
from .link import Credentials, Link
from .outcomes import AlreadyStored, NobodyStores, Outcome, Rejected
from .reading import StoredMessage
from .setup import require_accepted, require_platform, set_up
from .tail import Mark, OtherStream, Tail

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

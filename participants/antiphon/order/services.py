"""The three services with their parts in every style, for whoever runs all styles side by side, as `compose.yaml` does.

A style's module adds to the service as it is imported, so that a service that takes part in one style only is smaller.
"""

from __future__ import annotations

from .choreographed import billing as choreographed_billing
from .choreographed import shipping as choreographed_shipping
from .choreographed.inventory import inventory
from .hybrid.billing import billing
from .hybrid.shipping import shipping

__all__ = ["billing", "inventory", "shipping"]

assert (choreographed_billing.billing, choreographed_shipping.shipping) == (billing, shipping), "there is one of each"

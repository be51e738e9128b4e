"""`python -m tests.upgrade.participant NAME DATABASE`: one of the services, in whichever release runs this."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

from antiphon.participants import serve

from .sagas import PARTICIPANTS, require_release

ACK_WAIT_SECONDS: Final = 2.0
"""What a killed worker held is delivered again after this time; in production after thirty seconds."""

if __name__ == "__main__":
    require_release()
    name, database = sys.argv[1:]
    asyncio.run(serve(PARTICIPANTS[name], os.environ["NATS_URL"], database, ack_wait_seconds=ACK_WAIT_SECONDS))

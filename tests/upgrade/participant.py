"""`python -m tests.upgrade.participant NAME DATABASE SECONDS`: one of the services, in whichever release runs this.

What it holds when it is killed is delivered again after so many seconds.
"""

from __future__ import annotations

import asyncio
import os
import sys

from antiphon.participants import serve

from .sagas import PARTICIPANTS, require_release

if __name__ == "__main__":
    require_release()
    name, database, seconds = sys.argv[1:]
    asyncio.run(serve(PARTICIPANTS[name], os.environ["NATS_URL"], database, ack_wait_seconds=float(seconds)))

"""What a creds file says of the user whose it is. Whether it is true the server finds out."""

from __future__ import annotations

import base64
import re
from typing import Final

import msgspec

_TOKEN: Final = re.compile(r"-----BEGIN NATS USER JWT-----\s+[\w-]+\.([\w-]+)\.[\w-]+\s")


class _Claims(msgspec.Struct):
    name: str = ""


def user_in(creds: str) -> str:
    """The name of the user, as whoever signed the file calls it; empty where it says none."""
    found = _TOKEN.search(creds)
    if found is None:
        return ""
    try:
        body = base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4))
        return msgspec.json.decode(body, type=_Claims).name
    except (ValueError, msgspec.MsgspecError):
        return ""

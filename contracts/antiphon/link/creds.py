"""Creds files and nkeys: the package that signs with them, and what a creds file says of the user whose it is."""

from __future__ import annotations

import base64
import re
from importlib.util import find_spec
from typing import Final

import msgspec

from antiphon.contracts.errors import PlatformError

_TOKEN: Final = re.compile(r"-----BEGIN NATS USER JWT-----\s+[\w-]+\.([\w-]+)\.[\w-]+\s")


def require_nkeys(who_needs: str) -> None:
    """Check that the package is there which nats-py signs with, and does not bring along.

    Args:
        who_needs: the beginning of the sentence: `NATS_NKEY needs`.

    Raises:
        PlatformError: the extra `nkeys` is not installed.
    """
    if find_spec("nkeys") is None:
        raise PlatformError(f"{who_needs} a package that is not installed: pip install 'antiphon[nkeys]'")


class _Claims(msgspec.Struct):
    name: str = ""


def user_in(creds: str) -> str:
    """The name of the user, as whoever signed the file calls it; empty where it says none. Whether it is true the
    server finds out."""
    found = _TOKEN.search(creds)
    if found is None:
        return ""
    try:
        body = base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4))
        return msgspec.json.decode(body, type=_Claims).name
    except (ValueError, msgspec.MsgspecError):
        return ""

"""Keys and signed claims as NATS' operator mode has them: nkeys, JWTs, and the creds files that users log in with.

A claim is a JWT of three parts, signed by the key that its `iss` names: https://docs.nats.io/reference/reference-protocols/nats-server-jwt
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from antiphon.contracts.errors import PlatformError
from antiphon.link.creds import require_nkeys

from ..files import make_private, write_private

Role = Literal["OPERATOR", "ACCOUNT", "USER"]

HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}
VERSION: Final = 2
SEED_BYTES: Final = 32
LETTERS: Final = {"OPERATOR": "O", "ACCOUNT": "A", "USER": "U"}


@dataclass(frozen=True)
class Key:
    """A pair of keys. Its seed is a secret, which nothing shows.

    Args:
        public: what others know it by; its first letter says whose it is.
        seed: the pair is made of it.
    """

    public: str
    seed: str

    def __repr__(self) -> str:
        return f"Key({self.public})"

    def sign(self, subject: str, name: str, claims: dict[str, Any], issued_at: int = 0) -> str:
        """A JWT that says something of a subject.

        Args:
            subject: the public key that it is about.
            name: what the subject is called.
            claims: what it says, under `nats`.
            issued_at: when, in seconds since 1970; now when 0.
        """
        body = {
            "iat": issued_at or int(time.time()),
            "iss": self.public,
            "name": name,
            "sub": subject,
            "nats": {**claims, "version": VERSION},
        }
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
        body["jti"] = base64.b32encode(digest).decode().rstrip("=")
        text = f"{_encoded(HEADER)}.{_encoded(body)}"
        signature: bytes = _nkeys().from_seed(bytearray(self.seed.encode())).sign(text.encode())
        return f"{text}.{_base64(signature)}"


def new_key(role: Role) -> Key:
    """A fresh pair.

    Raises:
        PlatformError: the extra `nkeys` is not installed.
    """
    nkeys = _nkeys()
    seed: bytes = nkeys.encode_seed(os.urandom(SEED_BYTES), getattr(nkeys, f"PREFIX_BYTE_{role}"))
    return key_of(seed.decode())


def key_of(seed: str) -> Key:
    """The pair of a seed. What is wrong with one raises an error of nkeys', or of the libraries below it."""
    public: bytes = _nkeys().from_seed(bytearray(seed.encode())).public_key
    return Key(public.decode(), seed)


def kept_key(file: Path, role: Role) -> Key:
    """The pair whose seed a file has; a fresh one, which is written there, where there is no file yet.

    Raises:
        PlatformError: what the file has is no such seed.
        OSError: the file cannot be read or written.
    """
    if not file.exists():
        make_private(file.parent)
        made = new_key(role)
        write_private(file, f"{made.seed}\n")
        return made
    try:
        found = key_of(file.read_text().strip())
    except OSError:
        raise
    except Exception:  # nkeys, PyNaCl and base64 have errors of their own; none of their texts may be shown
        found = None
    if found is None or not found.public.startswith(LETTERS[role]):
        raise PlatformError(f"{file} has no seed of {'an' if role != 'USER' else 'a'} {role.lower()}'s key.")
    return found


def creds(token: str, key: Key) -> str:
    """The text of a creds file: a user's JWT, and the seed of its key."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{key.seed}\n------END USER NKEY SEED------\n"
    )


def _nkeys() -> Any:
    require_nkeys("JWTs need")
    import nkeys  # type: ignore[import-untyped] # it has no annotations

    return nkeys


def _encoded(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")

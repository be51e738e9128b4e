"""Small disks of a test's own that can be full: tmpfs, mounted where only this process and its children see them.

Only Linux has that, and only for who may mount: root, outside of a container without privileges.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from antiphon.contracts.errors import PlatformError

DISK_BYTES: Final = 48 << 20
"""More than the databases of a storm of some minutes have."""
BALLAST: Final = "ballast"
"""The file that fills a disk."""
PIECES_BYTES: Final = (1 << 20, 4096, 1)

CLONE_NEWNS: Final = 0x00020000
MS_REC: Final = 16384
MS_SLAVE: Final = 1 << 19
MNT_DETACH: Final = 2

_entered = False


def enter() -> None:
    """Have this thread, and all threads and processes that it starts, see mounts that nobody else sees. For good.

    Raises:
        PlatformError: that is not possible here; the sentence says why.
    """
    global _entered
    if _entered:
        return
    try:
        library = ctypes.CDLL(None, use_errno=True)
        unshare, mount = library.unshare, library.mount
    except (OSError, AttributeError, TypeError):
        raise PlatformError("small disks need Linux.") from None
    if unshare(CLONE_NEWNS) or mount(b"none", b"/", None, MS_REC | MS_SLAVE, None):
        why = os.strerror(ctypes.get_errno())
        raise PlatformError(f"no disk of its own can be mounted here ({why}): that takes root, outside of a container.")
    _entered = True


def why_not() -> str:
    """Why no small disk can be mounted here, tried in a process of its own; empty where one can be."""
    program = f"from {__name__} import enter; enter()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    tried = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    return tried.stderr.strip().rpartition("\n")[2].partition(": ")[2] if tried.returncode else ""


class Disk:
    """A small disk.

    Args:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._is_mounted = False

    @property
    def is_full(self) -> bool:
        """Whether its room is taken by a ballast."""
        return self._is_mounted and (self.folder / BALLAST).exists()

    def mount(self) -> None:
        """Mount it; `enter` comes first.

        Raises:
            PlatformError: it cannot be mounted.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        library, size = ctypes.CDLL(None, use_errno=True), f"size={DISK_BYTES}".encode()
        if library.mount(b"antiphon", bytes(self.folder), b"tmpfs", 0, size):
            raise PlatformError(f"no disk can be mounted at {self.folder}: {os.strerror(ctypes.get_errno())}.")
        self._is_mounted = True

    def fill(self) -> None:
        """Take all its room."""
        with (self.folder / BALLAST).open("wb", buffering=0) as ballast:
            for piece in PIECES_BYTES:
                with suppress(OSError):
                    while _is_taken(ballast.write(bytes(piece)), piece):
                        pass

    def free(self) -> None:
        """Give the room back."""
        (self.folder / BALLAST).unlink(missing_ok=True)

    def unmount(self) -> None:
        """Keep its files in the folder, and end it."""
        if not self._is_mounted:
            return
        self.free()
        kept = self.folder.with_suffix(".kept")
        shutil.copytree(self.folder, kept)
        ctypes.CDLL(None).umount2(bytes(self.folder), MNT_DETACH)
        self._is_mounted = False
        shutil.copytree(kept, self.folder, dirs_exist_ok=True)
        shutil.rmtree(kept)


def _is_taken(written: int | None, piece: int) -> bool:
    """Whether a whole piece went onto a disk, so that another one may, too."""
    return written == piece

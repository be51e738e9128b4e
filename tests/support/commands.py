"""The command line, run to its end: each time in a process of its own, forked from one that has imported it already.

Importing it takes half a second of CPU, which a thousand of them would pay each.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

from antiphon.link import killpoints

SECONDS_MAX: Final = 120.0
REQUEST_BYTES_MAX: Final = 1 << 20
READ_AT_START: Final = ("PYTHON", killpoints.VARIABLE, killpoints.FAULTS)
"""What the names of variables begin with that come too late for a process that runs already."""
PACKAGES: Final = ("antiphon.deploy.cli", "antiphon.deploy.render", "antiphon.flow", "antiphon.coordinator.reading")


def run_antiphon(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path | None = None,
    stdin: str = "",
    seconds: float = SECONDS_MAX,
) -> subprocess.CompletedProcess[str]:
    """Run `antiphon` to its end.

    Args:
        arguments: what follows `antiphon`.
        environment: all of its variables.
        folder: where it runs and finds modules; that of the tests if left out.
        stdin: what it reads.
        seconds: how long it may take.

    Raises:
        TimeoutExpired: it has not ended by then, and was killed.
    """
    command = [sys.executable, "-m", "antiphon.deploy", *arguments]
    if any(os.environ.get(name) != value for name, value in environment.items() if name.startswith(READ_AT_START)):
        return subprocess.run(
            command,
            cwd=folder,
            env=dict(environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    request = {"arguments": list(arguments), "environment": dict(environment), "folder": str(folder or Path.cwd())}
    in_, out, error, status = os.pipe(), os.pipe(), os.pipe(), os.pipe()
    _forker().ask(request, [in_[0], out[1], error[1], status[1]])
    for fd in (in_[0], out[1], error[1], status[1]):
        os.close(fd)
    texts: dict[str, str] = {}
    threads = [
        threading.Thread(target=_read, args=(texts, name, pipe[0]), daemon=True)
        for name, pipe in (("out", out), ("error", error))
    ]
    threads.append(threading.Thread(target=_write, args=(in_[1], stdin), daemon=True))
    for thread in threads:
        thread.start()
    with os.fdopen(status[0]) as told:
        pid = int(told.readline())
        timer = threading.Timer(seconds, os.kill, (pid, signal.SIGKILL))
        timer.start()
        code = int(told.readline())
    timer.cancel()
    for thread in threads:
        thread.join()
    if code == -signal.SIGKILL:
        raise subprocess.TimeoutExpired(command, seconds, texts["out"], texts["error"])
    return subprocess.CompletedProcess(command, code, texts["out"], texts["error"])


def _read(texts: dict[str, str], name: str, fd: int) -> None:
    with os.fdopen(fd) as file:
        texts[name] = file.read()


def _write(fd: int, text: str) -> None:
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
    except BrokenPipeError:  # nobody wanted to read it
        pass


class _Forker:
    """The process that has imported the command line, and ends with this one."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.support.commands", str(theirs.fileno())]
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(command, cwd=root, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def ask(self, request: dict[str, Any], fds: list[int]) -> None:
        socket.send_fds(self._socket, [json.dumps(request).encode()], fds)


_only_one: Final = threading.Lock()


def _forker() -> _Forker:
    with _only_one:  # several threads may want their first command at once
        return _made()


@cache
def _made() -> _Forker:
    return _Forker()


# --- the process that forks -------------------------------------------------------------------------------------------


def _serve(asked: socket.socket) -> None:
    """Fork a process for each request, until nobody asks any more. Only in such a process this returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        data, fds, *_ = socket.recv_fds(asked, REQUEST_BYTES_MAX, 4)
        if not data:
            os._exit(0)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            asked.close()
            *streams, status = fds
            pid = os.fork()
            if pid == 0:
                os.close(status)
                _become(json.loads(data), streams)
                return
            _watch(pid, streams, status)
        for fd in fds:
            os.close(fd)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Be the process that was asked for."""
    for target, fd in enumerate(streams):
        os.dup2(fd, target)
        os.close(fd)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    sys.argv = ["antiphon", *request["arguments"]]
    importlib.invalidate_caches()


def _watch(pid: int, streams: list[int], status: int) -> None:
    """Tell a process's id, and at its end the exit code."""
    for fd in streams:
        os.close(fd)
    os.write(status, f"{pid}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(status, f"{code}\n".encode())
    os._exit(0)


def _prepare() -> None:
    """Do once what each command does before its own work: import, and make commands of functions."""
    for name in PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(name).__path__, f"{name}."):
            importlib.import_module(module.name)
    typer.main.get_command = cache(typer.main.get_command)
    typer.main.get_command(app)
    CliRunner().invoke(app, ["no-such-command"])
    gc.freeze()  # so that forked processes do not copy all of it


def _end(main: Callable[[], None]) -> NoReturn:
    """Run to the end, and leave without clearing away all that was imported."""
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    import typer.main
    from typer.testing import CliRunner

    from antiphon.deploy.__main__ import main
    from antiphon.deploy.cli.main import app

    _prepare()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    _end(main)

"""compose.yaml brought up without Docker: each service is a process with its command, its environment, nothing else.

What lies inside a container is put to where it is here: folders of volumes and configurations, addresses, ports.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from antiphon.deploy.local.server import HOST, find_binary, free_port
from antiphon.deploy.local.styles import Style
from antiphon.deploy.modules import load_saga
from tests.processes.containers import COMPOSE, DEPLOY, SERVICES, instructions
from tests.support.receiver import Receiver

HEALTHY_SECONDS: Final = 120.0
ENDED_SECONDS: Final = 120.0


@dataclass
class Up:
    """`docker compose up` by hand.

    Args:
        programs: the folder that the image has first on its PATH.
        folder: where volumes, logs and configurations go.
    """

    programs: Path
    folder: Path
    port: int = field(default_factory=free_port)
    monitoring: int = field(default_factory=free_port)
    processes: dict[str, list[subprocess.Popen[bytes]]] = field(default_factory=dict)
    jaeger: str = ""
    """Where a backend for traces listens in Jaeger's place."""
    traces: Receiver = field(default_factory=Receiver)

    def make_secrets(self) -> None:
        """What the README has an administrator do first."""
        names = [name for name, service in SERVICES.items() if service.get("command", [""])[0] == "participant"]
        participants = [f"--participant={name}" for name in names]
        clients = [f"--client=client={load_saga(style.saga).name}" for style in Style]
        rights = ["rights", *participants, *clients, "--secrets", str(self.folder / "secrets")]
        command = [str(self.programs / "antiphon"), *rights]
        made = subprocess.run(command, capture_output=True, text=True, check=True)
        (self.folder / "accounts.conf").write_text(made.stdout)

    def start(self, name: str) -> None:
        """Start a service after all that it depends on."""
        if name in self.processes:
            return
        service = SERVICES[name]
        for other, needs in service.get("depends_on", {}).items():
            if other != "jaeger":  # somebody else is there in its place
                self.start(other)
                self._wait(other, needs["condition"])
        replicas = service["deploy"].get("replicas", 1)
        self.processes[name] = [self._launch(name, service["command"]) for _ in range(replicas)]

    def run(self, name: str, *arguments: str, stdin: str = "") -> str:
        """`docker compose run`: what it prints."""
        return self._finish(name, self._command(name, arguments), stdin)

    def execute(self, name: str, program: str, *arguments: str) -> str:
        """`docker compose exec`, beside the service in its container: what it prints."""
        return self._finish(name, [str(self.programs / program), *arguments])

    def _finish(self, name: str, command: Sequence[str], stdin: str = "") -> str:
        """Run a command to its end with a service's environment."""
        ran = subprocess.run(
            command,
            env=self.environment(name),
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=ENDED_SECONDS,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr + self.logs()
        return ran.stdout

    def stop(self, name: str) -> list[int]:
        """`docker compose stop`: SIGTERM, and the exit codes."""
        for process in self.processes[name]:
            process.terminate()
        grace = float(SERVICES[name].get("stop_grace_period", "10s").removesuffix("s"))
        return [process.wait(grace) for process in self.processes[name]]

    def kill(self) -> None:
        """End what is left."""
        for process in (each for processes in self.processes.values() for each in processes):
            process.kill()
            process.wait()

    def logs(self) -> str:
        """What the services said, for a failing test to show."""
        return "\n".join(f"--- {log.stem}\n{log.read_text()[-2000:]}" for log in self.folder.glob("*.log"))

    def _launch(self, name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        (self.folder / name).mkdir(exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                self._command(name, arguments),
                env=self.environment(name),
                cwd=self.folder / name,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _command(self, name: str, arguments: Sequence[str]) -> list[str]:
        """The entry point and the command, with what is inside a container put to where it is here."""
        if name == "nats":
            return [find_binary(), *(argument.replace("/etc/nats", str(self._nats())) for argument in arguments)]
        (entry,) = json.loads(instructions("ENTRYPOINT")[0])
        return [str(self.programs / entry), *(self._outside(name, argument) for argument in arguments)]

    def _outside(self, name: str, text: str) -> str:
        """A text of a service with its volume where it is here."""
        return text.replace("/data/", f"{self.folder / name}/")

    def environment(self, name: str) -> dict[str, str]:
        """All variables of a container: the image's, the service's and its file's."""
        found = {"PATH": f"{self.programs}:/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
        given = SERVICES[name].get("environment", {})
        found |= {key: self._outside(name, str(value)) for key, value in given.items()}
        file = self.folder / SERVICES[name]["env_file"]
        found |= dict(line.split("=", 1) for line in file.read_text().splitlines())
        # Inside of a container each has the port of the health check to itself.
        pages = {"0.0.0.0:9464": f"{HOST}:{free_port()}"}
        here = {"nats:4222": f"{HOST}:{self.port}", "http://jaeger:4318": self.jaeger, **pages}
        for name, address in here.items():
            found = {key: value.replace(name, address) for key, value in found.items()}
        return found

    def _nats(self) -> Path:
        """The server's files where Compose puts them, with addresses and folders of this machine."""
        folder = self.folder / "etc-nats"
        folder.mkdir(exist_ok=True)
        changes = {
            '"0.0.0.0:4222"': f'"{HOST}:{self.port}"',
            ":8222": f":{self.monitoring}",
            '"/data"': f'"{self.folder / "nats"}"',
        }
        for config in SERVICES["nats"]["configs"]:
            name = COMPOSE["configs"][config["source"]]["file"]
            text = ((self.folder if name == "accounts.conf" else DEPLOY) / name).read_text()
            for here, there in changes.items() if name == "nats.conf" else ():
                assert text.count(here) == 1, here
                text = text.replace(here, there)
            (folder / Path(config["target"]).name).write_text(text)
        return folder

    def _wait(self, name: str, condition: str) -> None:
        """Wait for a service as `depends_on` says."""
        if condition == "service_completed_successfully":
            assert [process.wait(ENDED_SECONDS) for process in self.processes[name]] == [0], self.logs()
            return
        assert condition == "service_healthy"
        url = SERVICES[name]["healthcheck"]["test"][-1].replace(":8222", f":{self.monitoring}")
        deadline = time.monotonic() + HEALTHY_SECONDS
        while not _answers(url):
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.02)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False

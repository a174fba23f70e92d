"""An artifact store as the role `artifacts` deploys it: its nginx.conf, on a port of its own."""

from __future__ import annotations

import grp
import json
import os
import pwd
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from tests.loopback import free_port, wait_until
from tests.programs import NGINX

ROLE = Path(__file__).parents[1] / "roles" / "artifacts"
TOKENS = {"write": "the-token-for-writing", "read": "the-token-for-reading"}
WRITER, READER = f"writer:{TOKENS['write']}", f"reader:{TOKENS['read']}"
MAX_BYTES = 1_000_000


@dataclass
class RoleArtifacts:
    """Its files are in `files`, what is not finished in `scratch`."""

    directory: Path
    data: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def files(self) -> Path:
        return self.data / "files"

    @property
    def scratch(self) -> Path:
        return self.data / "scratch"

    @property
    def config(self) -> Path:
        return self.directory / "nginx.conf"

    @property
    def log(self) -> str:
        return (self.directory / "nginx.log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        for place in (self.files, self.scratch):
            place.mkdir(parents=True, exist_ok=True)
        if not self.config.exists():
            self._render()
        me = pwd.getpwuid(os.getuid()).pw_name
        options = (
            f"daemon off; pid {self.directory}/pid; user {me} {grp.getgrgid(os.getgid()).gr_name};"
        )
        with (self.directory / "nginx.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(NGINX), "-e", "stderr", "-c", str(self.config), "-g", options],
                stdout=log,
                stderr=log,
                # The workers are ended with it: a killed master does not do that.
                start_new_session=True,
            )
        wait_until(self._answers, what="nginx")

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/", timeout=2):
                return True
        except urllib.error.HTTPError as exc:
            exc.close()
            return exc.code == 404
        except OSError:
            return False

    def _render(self) -> None:
        """The role's own templates, by Ansible itself."""
        # Of more weight than the role's own, which say where systemd shows credentials.
        variables = {
            "artifacts_tokens": TOKENS,
            "artifacts_address": "127.0.0.1",
            "artifacts_port": self.port,
            "artifacts_directory": str(self.data),
            "artifacts_max_bytes": MAX_BYTES,
            "__artifacts_credentials": str(self.directory),
        }
        template = "ansible.builtin.template"

        def task(source: str, name: str, **more: str) -> dict[str, object]:
            path = {"src": str(ROLE / "templates" / source), "dest": str(self.directory / name)}
            return {template: {**path, "mode": "0600"}, "vars": more}

        play = {
            "hosts": "localhost",
            "gather_facts": False,
            "vars_files": [str(ROLE / "vars" / "main.yml")],
            "tasks": [
                task("users.j2", "artifacts-writers", __artifacts_user="writer"),
                task("users.j2", "artifacts-readers", __artifacts_user="reader"),
                task("nginx.conf.j2", self.config.name),
            ],
        }
        playbook = self.directory / "render.yml"
        playbook.write_text(json.dumps([play]), encoding="utf-8")
        program = Path(sys.executable).with_name("ansible-playbook")
        done = subprocess.run(
            [
                *(str(program), "-i", "localhost,", "-c", "local"),
                *("-e", json.dumps(variables), str(playbook)),
            ],
            env={**os.environ, "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

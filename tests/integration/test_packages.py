"""Wheel, sdist and Debian package are built and looked into, and the package's daemons are run as its units say.

The package is not installed on this machine: its files are laid over /usr in a mount namespace of the test's own.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DAEMONS = {"mapserver": 9343, "xtr": 9342, "fmcc": 9344, "agent": None}
NOBODY = 65534

pytestmark = pytest.mark.namespaces


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(ROOT / "deploy/package.sh", DIST=str(folder))
    return folder


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a file system that has the package and nothing else."""
    folder = tmp_path_factory.mktemp("root")
    run("dpkg-deb", "-x", next(dist.glob("*.deb")), folder)
    return folder


def test_the_wheel_has_our_packages_and_the_kernel_program_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        assert wheel.read("xtr/dataplane/lisp.bpf.o") == (ROOT / "xtr/dataplane/lisp.bpf.o").read_bytes()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lispfmc", "xtr", "mapserver", "fmcc"}
    tracked = run("git", "-C", ROOT, "ls-files", "lispfmc", "xtr", "mapserver", "fmcc").split()
    assert set(tracked) == {name for name in names if ".dist-info/" not in name}


def test_the_sdist_builds_the_same_wheel_contents(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        packaged = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packaged <= inside
    assert {"pyproject.toml", "README.md", "LICENSE"} <= inside


def unit_of(installed: Path, daemon: str) -> dict[str, str]:
    lines = (installed / f"usr/lib/systemd/system/lispfmc-{daemon}.service").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


class Machine:
    """A mount and network namespace in which the package is installed; what it starts, it ends."""

    def __init__(self, installed: Path, folder: Path) -> None:
        self._installed, self._folder = installed, folder
        self._running: list[subprocess.Popen[bytes]] = []
        self._sockets = Path(tempfile.mkdtemp(prefix="lispfmc-"))  # pytest's own folders are closed to other users
        self._sockets.chmod(0o755)
        set_up = f"""set -e
            mount -t overlay overlay -o lowerdir={installed}/usr:/usr /usr
            mount -t overlay overlay -o lowerdir={installed}/etc:/etc /etc
            mount -t tmpfs tmpfs /var/lib
            mount -t tmpfs tmpfs /dev/net; mknod -m 666 /dev/net/tun c 10 200
            ip link set lo up
            ip link add wan0 type veth peer name far; ip link set wan0 up; ip link set far up
            ip link add lan type veth peer name host; ip link set lan up; ip link set host up
            for address in 198.18.0.1 198.18.0.2 198.18.0.21; do ip addr add $address/32 dev wan0; done
            ip addr add 169.254.1.1/32 dev lan
            echo ready; exec sleep infinity"""
        self._sleeper = subprocess.Popen(
            ["unshare", "--mount", "--net", "bash", "-c", set_up], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self._sleeper.stdout is not None
        said = self._sleeper.stdout.readline()
        assert said == b"ready\n", said + self._sleeper.stdout.read()

    def command(self, *command: str) -> list[str]:
        return ["nsenter", "-t", str(self._sleeper.pid), "--mount", "--net", "--", *command]

    def start(self, daemon: str) -> None:
        """As its unit says, unprivileged but for the unit's capabilities; returns when it says READY=1."""
        unit = unit_of(self._installed, daemon)
        state = f"/var/lib/{unit['StateDirectory']}"
        run(*self.command("install", "-d", "-o", str(NOBODY), "-m", "700", state))
        capabilities = ",".join(f"+{name[4:].lower()}" for name in unit["AmbientCapabilities"].split())
        allowed = f"-all,{capabilities}" if capabilities else "-all"
        confined = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
        confined += [f"--{kind}={allowed}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            path = self._sockets / daemon
            manager.bind(str(path))
            path.chmod(0o777)
            manager.settimeout(20)
            with (self._folder / f"{daemon}.log").open("wb") as log:
                command = self.command(*confined, *unit["ExecStart"].split())
                environment = {**os.environ, "NOTIFY_SOCKET": str(path)}
                self._running.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
            try:
                assert manager.recv(100) == b"READY=1"
            except TimeoutError:
                pytest.fail(f"{daemon} did not say that it is up: {self.said(daemon)}")

    def said(self, daemon: str) -> str:
        return (self._folder / f"{daemon}.log").read_text()

    def ready(self, url: str) -> tuple[int, str]:
        """What /readyz answers, from inside."""
        program = (
            "import sys, urllib.request, urllib.error\n"
            "try: answer = urllib.request.urlopen(sys.argv[1], timeout=5)\n"
            "except urllib.error.HTTPError as error: answer = error\n"
            "print(answer.status, answer.read().decode())"
        )
        status, _, body = run(*self.command("/usr/lib/lispfmc/bin/python", "-c", program, url)).partition(" ")
        return int(status), body

    def close(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(15)
        self._sleeper.kill()
        self._sleeper.communicate()
        shutil.rmtree(self._sockets)


@pytest.fixture
def machine(installed: Path, tmp_path: Path) -> Iterator[Machine]:
    examples = installed / "usr/share/doc/lispfmc/examples"
    for daemon in DAEMONS:
        shutil.copy(examples / f"{daemon}.toml", installed / "etc/lispfmc")
    started = Machine(installed, tmp_path)
    try:
        yield started
    finally:
        started.close()


def test_units_are_valid_and_confined(installed: Path, machine: Machine) -> None:
    units = sorted(unit.name for unit in (installed / "usr/lib/systemd/system").glob("*.service"))
    assert units == [f"lispfmc-{daemon}.service" for daemon in sorted(DAEMONS)]
    run(*machine.command("systemd-analyze", "verify", *units))
    for unit in units:
        run(*machine.command("systemd-analyze", "security", "--offline=yes", "--threshold=25", unit))


def test_manual_pages_and_completions_are_packaged(installed: Path, machine: Machine) -> None:
    pages = {path.name for path in (installed / "usr/share/man").rglob("*.gz")}
    assert {"lispfmc.1.gz", "lispfmc-move.1.gz", "lispfmc-lab-up.1.gz", "lispfmc-xtr.8.gz"} <= pages
    page = installed / "usr/share/man/man1/lispfmc-move.1.gz"
    assert "the access network to move to" in run("man", "--warnings=w", "-l", page, LC_ALL="C.UTF-8", MANWIDTH="120")
    # what bash would ask for after `lispfmc che<TAB>`
    script = "source /usr/share/bash-completion/completions/lispfmc; COMP_WORDS=(lispfmc che); COMP_CWORD=1; "
    script += '_lispfmc_completion lispfmc; echo "${COMPREPLY[@]}"'
    assert run(*machine.command("bash", "-c", script)).split() == ["check"]


def test_each_daemon_starts_from_the_package_with_its_example_and_gets_ready(machine: Machine) -> None:
    for daemon in DAEMONS:
        machine.start(daemon)
    for daemon, port in DAEMONS.items():
        url = f"http://127.0.0.1:{port}/readyz" if port else "http://198.18.0.21:9350/readyz"
        answer = machine.ready(url)
        until = time.monotonic() + 20
        while answer[0] != 200 and time.monotonic() < until:  # a registration and a subscription are under way
            time.sleep(0.2)
            answer = machine.ready(url)
        assert answer[0] == 200, f"{daemon}: {answer[1]}\n{machine.said(daemon)}"
    chosen = [json.loads(line) for line in machine.said("xtr").splitlines() if "dataplane.chosen" in line]
    assert chosen, machine.said("xtr")
    assert "lispfmc" in run(*machine.command("/usr/bin/lispfmc", "--help"))

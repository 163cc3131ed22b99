"""Processes: run to their end, or as servers until nobody needs them."""

import os
import shlex
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

# What a server may take to come up, or to go, in seconds.
PATIENCE = 60


class Failed(Exception):
    """A command that did not do what it was for."""


def pinned(core, command):
    """A command on one core, or on several: `0`, `0,1`."""
    return ["taskset", "-c", str(core), *map(str, command)]


def shown(command):
    """A command as one would type it."""
    return shlex.join(map(str, command))


def output(command, seconds, cwd=None, env=None):
    """What a command prints that takes about so long.

    Raises Failed with what it says instead.
    """
    try:
        done = subprocess.run(
            list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=seconds + PATIENCE,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{shown(command)} has not ended in {error.timeout:.0f} s") from error
    except OSError as error:
        raise Failed(f"{shown(command)}: {error.strerror}") from error
    if done.returncode != 0:
        raise Failed(f"{shown(command)} ended with {done.returncode}: {done.stderr.strip()[:500]}")
    return done.stdout


def free_port():
    """A TCP port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process that serves while the `with` lasts, and no longer than this one lives. Its output goes to `log`."""

    def __init__(self, command, log):
        self.command = ["setpriv", "--pdeathsig", "KILL", *map(str, command)]
        self.log = Path(log)

    def __enter__(self):
        with self.log.open("w") as log:
            try:
                self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT)
            except OSError as error:
                raise Failed(f"{shown(self.command)}: {error.strerror}") from error
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait_for(self, what, is_there):
        """Waits until `is_there()` is true."""
        last = time.monotonic() + PATIENCE
        while not is_there():
            if self.process.poll() is not None:
                said = self.log.read_text()[-2000:]
                raise Failed(f"{shown(self.command)} ended with {self.process.returncode}: {said}")
            if time.monotonic() > last:
                raise Failed(f"{shown(self.command)}: no {what} in {PATIENCE} s; see {self.log}")
            time.sleep(0.05)

    def wait_for_port(self, port):
        """Waits until somebody listens at this port of loopback."""

        def listens():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        self.wait_for(f"listener at port {port}", listens)

    def pause(self):
        """Has it stand still, so that it takes nothing of its core."""
        self.process.send_signal(signal.SIGSTOP)

    @contextmanager
    def awake(self):
        """It goes on while the `with` lasts."""
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def cpu_seconds(self):
        """What the process has been given of cores so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""Colour is for terminals, and not for those who do not want it; stdout is data, stderr is talk."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

COMMAND = [sys.executable, "-m", "lispfmc.cli", "model", "ctmc", "--rings", "3"]
COLOUR = b"\x1b[3"


def on_a_terminal(**environment: str) -> bytes:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    clean = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    process = subprocess.Popen(
        COMMAND, stdout=theirs, stderr=subprocess.DEVNULL, env={**clean, "TERM": "xterm-256color", **environment}
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 4096):
            written += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return written


def test_a_pipe_gets_plain_text() -> None:
    done = subprocess.run(COMMAND, capture_output=True, check=True, env={**os.environ, "TERM": "xterm-256color"})
    assert done.stdout
    assert b"\x1b" not in done.stdout


def test_a_terminal_gets_a_styled_table_and_no_colour_where_it_is_not_wanted() -> None:
    assert b"\x1b[" in on_a_terminal()
    assert COLOUR not in on_a_terminal(NO_COLOR="1")

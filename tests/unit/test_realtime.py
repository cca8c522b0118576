"""A router that is to run before everything else asks for it, and goes on where it may not."""

from __future__ import annotations

import os
import subprocess
import sys

from xtr.settings import XtrSettings

ASK = """
import os
from lispfmc.runtime.service import prefer
prefer(7)
print(os.sched_getscheduler(0) == os.SCHED_FIFO and os.sched_getparam(0).sched_priority)
"""


def asked(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)


def test_a_process_that_may_runs_by_the_priority_that_it_asks_for_or_says_why_not() -> None:
    done = asked(ASK)
    assert done.stdout == "7\n" or "dataplane.realtime = 0" in done.stderr


def test_a_process_that_may_not_says_what_it_needs_and_goes_on() -> None:
    before = "import os; from lispfmc.runtime import service; os.getuid() or os.setuid(65534)"
    done = asked(before + ASK)
    assert done.stdout == "False\n"
    assert "CAP_SYS_NICE" in done.stderr
    assert "dataplane.realtime = 0" in done.stderr


def test_without_a_word_in_its_configuration_a_router_asks_for_nothing() -> None:
    assert XtrSettings.model_fields["dataplane"].annotation.model_fields["realtime"].default == 0  # type: ignore[union-attr]
    assert os.sched_getscheduler(0) != os.SCHED_FIFO

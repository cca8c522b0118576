"""The live page in a browser, over a running lab: what it shows and moves, and what it says when something is wrong.

Screenshots are left in build/screenshots.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lispfmc.lab import lifecycle
from lispfmc.lab.installation import Installation
from lispfmc.lab.relay import tokens
from lispfmc.lab.topology import SHIPPED

if TYPE_CHECKING:
    from playwright.sync_api import Page


def expect(found: Any) -> Any:
    """Playwright's, loaded when a test runs: without it, this file's tests are skipped with the reason."""
    from playwright.sync_api import expect as expect_of

    return expect_of(found)


pytestmark = [pytest.mark.namespaces, pytest.mark.browser]

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build/screenshots"
LAB = "pagetest"
IN_TIME = 20_000  # milliseconds; a bound for what should take some tenths of a second


class Relayed:
    """`lispfmc page` as a process of its own; it can be stopped and started again at the same port."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.start("127.0.0.1:0")

    def start(self, listen: str) -> None:
        command = [sys.executable, "-m", "lispfmc.cli", "page", "--lab", LAB, "--listen", listen, "-o", "json"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        told = ""
        while not told.endswith("}\n"):
            told += self._process.stdout.readline()
        self.url = json.loads(told)["url"].split("#")[0]

    @property
    def listen(self) -> str:
        return self.url.removeprefix("http://").rstrip("/")

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(15)


@pytest.fixture(scope="module")
def lab() -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(prefix="lfmc") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LISPFMC_RUN", folder)
        topology = Path(folder) / "quick.toml"
        text = (SHIPPED / "fig5.toml").read_text()
        assert "copy_s = 5.0" in text
        topology.write_text(text.replace("copy_s = 5.0", "copy_s = 0.5"))
        lifecycle.down(LAB)
        try:
            yield lifecycle.up(str(topology), LAB)
        finally:
            lifecycle.down(LAB)


@pytest.fixture(scope="module")
def relayed(lab: Installation) -> Iterator[Relayed]:
    relay = Relayed()
    yield relay
    relay.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # no sandbox: the tests run as root; no proxy, no profile, nothing but loopback
        started = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--no-proxy-server"]
        )
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any, lab: Installation, relayed: Relayed) -> Iterator[Callable[..., Page]]:
    """Opens the page with a token; whatever goes wrong in its scripts fails the test."""
    contexts, wrong = [], []

    def opened(*, role: str = "operate", token: str | None = None, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(IN_TIME)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        given = tokens(lab.folder)[role] if token is None else token  # type: ignore[index]
        page.goto(relayed.url + (f"#token={given}" if given else ""))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def is_live(page: Page) -> None:
    expect(page.locator("#link[data-state=live]")).to_be_visible(timeout=IN_TIME)
    expect(page.locator("[data-site=dc2]")).to_be_visible(timeout=IN_TIME)


def shot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(SHOTS / f"{name}.png"), full_page=True)


def row(page: Page, service: str) -> Any:
    return page.locator(f"tr[data-service={service}]")


def test_a_move_is_started_by_keyboard_and_seen_to_finish(open_page: Callable[..., Page]) -> None:
    page = open_page()
    is_live(page)
    assert page.evaluate("location.hash") == "", "the token does not stay in the address"
    target = "dc2" if "dc1" in row(page, "alice-app").inner_text() else "dc1"
    button = row(page, "alice-app").get_by_role("button")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#move-dialog")).to_be_visible()
    page.locator("#move-to").select_option(target)
    page.get_by_role("button", name="Move it").press("Enter")
    move = page.locator("#move-list > li").first
    expect(move).to_have_attribute("data-state", "committed", timeout=IN_TIME)
    expect(move).to_contain_text("stopped")
    expect(move).to_contain_text("stood still")
    expect(move).to_contain_text("held", timeout=IN_TIME)
    expect(row(page, "alice-app")).to_contain_text(target)
    expect(page.locator(f"[data-site={target}]")).to_have_attribute("aria-label", re.compile("alice-app"))
    shot(page, "moved")


def test_who_may_only_read_sees_everything_and_moves_nothing(open_page: Callable[..., Page]) -> None:
    page = open_page(role="read")
    is_live(page)
    before = page.locator("#move-list > li").count()
    row(page, "bob-app").get_by_role("button").click()
    page.get_by_role("button", name="Move it").click()
    expect(page.locator("#said")).to_contain_text("not allowed")
    expect(page.locator("#token-dialog")).to_be_visible()
    assert page.locator("#move-list > li").count() == before


@pytest.mark.parametrize("token", ["", "wrong"])
def test_without_a_valid_token_it_asks_for_one_and_shows_nothing(
    open_page: Callable[..., Page], lab: Installation, token: str
) -> None:
    page = open_page(token=token)
    expect(page.locator("#token-dialog")).to_be_visible()
    expect(page.locator("#link")).to_contain_text("token")
    assert page.locator("[data-site]").count() == 0
    page.locator("#token-value").fill(tokens(lab.folder)["read"])
    page.get_by_role("button", name="Use it").click()
    is_live(page)


def shown(page: Page) -> list[int]:
    """The ids of the events on the page, oldest first."""
    found = page.locator("#event-list > li").evaluate_all("items => items.map(item => Number(item.dataset.id))")
    return [int(each) for each in reversed(found)]


def test_a_page_that_was_cut_off_comes_back_and_has_missed_nothing(
    open_page: Callable[..., Page], relayed: Relayed, lab: Installation
) -> None:
    page = open_page()
    is_live(page)
    command = [sys.executable, "-m", "lispfmc.cli", "move", "bob", "--lab", LAB]
    listen = relayed.listen
    relayed.stop()
    expect(page.locator("#link[data-state=lost]")).to_be_visible(timeout=IN_TIME)
    expect(page.locator("#parts")).to_contain_text("is down since")
    try:
        for site in ("access2", "access1"):
            subprocess.run([*command, "--to", site, "--wait"], cwd=ROOT, check=True, capture_output=True)
    finally:
        relayed.start(listen)
    is_live(page)
    expect(page.locator("#event-list > li[data-name='user.moved']")).to_have_count(2, timeout=IN_TIME)
    ids = shown(page)
    assert ids == list(range(ids[0], ids[0] + len(ids))), "every event, each once, in order"
    expect(page.locator("#parts")).to_be_hidden(timeout=IN_TIME)


def test_it_says_which_daemon_is_down_and_since_when(open_page: Callable[..., Page], lab: Installation) -> None:
    page = open_page()
    is_live(page)
    agent = next(daemon for daemon in lab.daemons if daemon.name == "hypervisor-dc2")
    assert agent.pid is not None
    os.kill(agent.pid, signal.SIGSTOP)
    os.kill(agent.pid, signal.SIGKILL)
    expect(page.locator("#parts")).to_contain_text("hypervisor-dc2", timeout=IN_TIME)
    expect(page.locator("#parts")).to_contain_text("is down since")
    shot(page, "agent-down")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
def test_it_fits_a_phone_and_a_desk_in_dark_and_light(
    open_page: Callable[..., Page], width: int, height: int, scheme: str
) -> None:
    page = open_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    is_live(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.locator("button:visible").evaluate_all(
        "all => all.filter(b => b.offsetHeight < 32).map(b => b.textContent)"
    )
    assert small == [], "a finger hits every button"
    shot(page, f"{scheme}-{width}")


def test_all_of_it_weighs_little() -> None:
    files = list((ROOT / "fmcc/page/assets").iterdir())
    assert sum(file.stat().st_size for file in files) < 150_000
    for file in files:
        assert "http://" not in file.read_text().replace("http://www.w3.org/", ""), f"{file.name} needs nobody else"


def test_event_to_pixel_and_idle_traffic_are_measured(open_page: Callable[..., Page], lab: Installation) -> None:
    """Figures for the record, in build/screenshots/page.json: this machine is shared, nothing is asserted of them."""
    page = open_page()
    is_live(page)
    received = [0]
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.dataReceived", lambda data: received.__setitem__(0, received[0] + data["dataLength"]))
    page.wait_for_timeout(1000)
    received[0], began = 0, time.monotonic()
    page.wait_for_timeout(4000)
    idle = received[0] / (time.monotonic() - began)
    page.evaluate(
        """() => { window.delays = []; new MutationObserver(changes => { for (const change of changes)
        for (const node of change.addedNodes) if (node.dataset?.id)
        requestAnimationFrame(() => window.delays.push(Date.now() - Number(node.dataset.time) * 1000)) })
        .observe(document.getElementById('event-list'), { childList: true }) }"""
    )
    command = [sys.executable, "-m", "lispfmc.cli", "move", "bob", "--lab", LAB, "--to"]
    for site in ("access2", "access1"):
        subprocess.run([*command, site, "--wait"], cwd=ROOT, check=False, capture_output=True)
    page.wait_for_function("window.delays.length > 2")
    delays = sorted(page.evaluate("window.delays"))
    weight = sum(file.stat().st_size for file in (ROOT / "fmcc/page/assets").iterdir())
    figures = {"event_to_pixel_ms_median": delays[len(delays) // 2], "idle_bytes_per_s": round(idle), "bytes": weight}
    SHOTS.mkdir(parents=True, exist_ok=True)
    (SHOTS / "page.json").write_text(json.dumps(figures, indent=1))
    print(figures)  # noqa: T201 - figures for the report
    assert len(delays) > 2

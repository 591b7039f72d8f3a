"""Fixtures of the app's tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from hastezoo.webapp.settings import AppSettings
from hastezoo.webapp.studio import Studio
from tests.webapp.serving import Served, running, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The app with its usual limits."""
    with serving(tmp_path_factory.mktemp("app") / "outputs") as app:
        yield app


@pytest.fixture
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """The app without its page."""
    made = Studio(AppSettings(outputs=tmp_path_factory.mktemp("studio")))
    yield made
    made.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """A fixture can see whether its test failed."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture(scope="session")
def app_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`python app.py` in a process of its own, as a person starts it."""
    with running(tmp_path_factory.mktemp("browser")) as url:
        yield url


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The system's chromium, without a window."""
    from playwright.sync_api import sync_playwright

    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    assert path, f"none of {', '.join(CHROMIUM)} is installed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(request: pytest.FixtureRequest, chromium: Browser, app_url: str) -> Iterator[Page]:
    """A page that must not err; a picture of it is kept in `screenshots/` if the test fails."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, permissions=["clipboard-read"])
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    if request.node.stash.get(FAILED, False):
        folder = request.config.rootpath / "screenshots"
        folder.mkdir(exist_ok=True)
        opened.screenshot(path=folder / f"{request.node.name}.png", full_page=True)
    context.close()
    assert not errors, errors

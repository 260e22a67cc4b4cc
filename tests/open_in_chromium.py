"""Pages in headless Chromium. Tests that use this are skipped where playwright or a browser is not installed."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next(filter(None, map(shutil.which, NAMES)), None)  # else the one that playwright has installed
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"needs Chromium: {error}")
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """A page at `url`. Fails if its script has an error, if it logs one, or if it asks for anything on a network."""
    context = browser.new_context(**options)
    page, problems = context.new_page(), list[str]()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    own = url.split("://")[0] + "://" + url.split("://")[1].split("/")[0]
    page.on("request", lambda one: None if one.url.startswith((own, "data:", "blob:")) else problems.append(one.url))
    page.goto(url)
    yield page
    context.close()
    assert not problems, problems


def until(page: Any, expression: str, seconds: float = 20) -> None:
    """Wait until an expression is true in the page. The page's policy forbids what `wait_for_function` does."""
    ends = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < ends, f"{expression} was not true within {seconds} s"
        page.wait_for_timeout(20)

"""Compare as a person uses it, in chromium. `pytest -m browser`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.webapp.test_browser import open_page, until_idle

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
SHOWN = "films => films.map(f => [...f.querySelectorAll('img')].filter(i => i.checkVisibility()).map(i => i.alt))"


def open_compare(page: Page, url: str) -> None:
    open_page(page, url)
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector("#compare-go")


def number(page: Page, element: str, value: float) -> None:
    """Type a number, and again if the control, which an accordion has only just shown, was set after it."""
    place = f"#{element} input[type=number]"
    for _ in range(20):
        page.fill(place, str(value))
        page.press(place, "Tab")
        page.wait_for_timeout(250)
        if page.input_value(place) == str(value):
            return
    raise AssertionError(f"{element} does not keep {value}, but shows {page.input_value(place)}")


def move(page: Page, place: int) -> list[Any]:
    """The frames seen when the slider is at a place, a list a column."""
    page.eval_on_selector("#compare-time", f"one => {{ one.value = {place}; one.dispatchEvent(new Event('input')); }}")
    return list(page.eval_on_selector_all(".hz-film", SHOWN))


def test_the_slider_moves_all_columns_to_the_same_time(page: Page, app_url: str) -> None:
    """4 steps beside 6: the nearest of 1, 3/4, ... and of 1, 5/6, ... at each of their times; the earlier of two."""
    open_compare(page, app_url)
    page.click("#compare-third input")
    page.click("#compare-a-settings button")
    number(page, "compare-a-steps", 4)
    page.click("#compare-b-settings button")
    number(page, "compare-b-steps", 6)
    page.click("#compare-go")
    page.wait_for_selector("#compare-films", timeout=60_000)
    own = [[1 - step / steps for step in range(steps)] + [0.0] for steps in (4, 6)]
    stops = sorted({f"{time:.6g}": time for time in own[0] + own[1]}.values(), reverse=True)
    names = ("Column A, sit-ti-digits", "Column B, sit-ti-digits-repa")
    for kind, said in (("state", "state"), ("clean", "predicted clean image")):
        page.click(f"#compare-{kind}")
        for place, stop in enumerate(stops):
            near = [min(times, key=lambda time: round(abs(time - stop), 5)) for times in own]
            wanted = [[f"{name}: {said} at t = {time:.3g}"] for name, time in zip(names, near, strict=True)]
            assert move(page, place) == wanted
    sizes = page.eval_on_selector_all(".hz-film img", "images => images.map(one => one.naturalWidth)")
    assert len(sizes) == 2 * (5 + 7) and min(sizes) > 0


def test_the_settings_of_a_are_copied_but_not_its_checkpoint(page: Page, app_url: str) -> None:
    open_compare(page, app_url)
    page.click("#compare-a-settings button")
    number(page, "compare-a-steps", 7)
    number(page, "compare-a-high", 0.6)
    page.click("#compare-c-settings button")
    page.click("#compare-c-copy")
    page.wait_for_function("document.querySelector('#compare-c-steps input[type=number]').value === '7'")
    assert page.input_value("#compare-c-high input[type=number]") == "0.6"
    assert "haste" in page.input_value("#compare-c-model input")


def test_cancel_stops_a_comparison_and_a_play_ends_at_the_images(page: Page, app_url: str) -> None:
    open_compare(page, app_url)
    page.click("#compare-a-settings button")
    number(page, "compare-a-steps", 700)
    page.click("#compare-go")
    page.wait_for_selector("#compare-preview img", timeout=60_000)
    page.click("#compare-cancel")
    page.wait_for_selector("#compare-progress .hz-cancelled", timeout=10_000)
    until_idle(app_url)
    number(page, "compare-a-steps", 2)
    page.click("#compare-go")
    page.wait_for_selector("#compare-films", timeout=60_000)
    page.click("#compare-play")
    assert page.inner_text("#compare-play") == "Pause"
    page.wait_for_function("document.getElementById('compare-play').textContent === 'Play'", timeout=20_000)
    assert set(page.locator(".hz-films .hz-time").all_inner_texts()) == {"t = 0"}

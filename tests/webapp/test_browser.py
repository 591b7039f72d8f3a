"""The page as a person uses it, in chromium. `pytest -m browser`."""

from __future__ import annotations

import json
import shlex
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from hastezoo.cli.main import main
from tests.webapp.serving import proxied, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
SEED = "#generate-seed textarea"
TABS = ("generate", "compare", "sweep", "evaluate", "zoo")


def open_page(page: Page, url: str, query: str = "") -> None:
    """Open the app and wait until an address has been read."""
    page.goto(url + query)
    page.wait_for_function("window.hastezoo && hastezoo.ready")


def choose(page: Page, element: str, *texts: str) -> None:
    """Type into a searchable list, and take what it finds."""
    for text in texts:
        page.click(f"#{element} input")
        page.keyboard.type(text)
        page.keyboard.press("Enter")
    page.keyboard.press("Escape")


def fetched(page: Page, selector: str) -> list[bytes]:
    """The files behind some images."""
    sources = page.eval_on_selector_all(selector, "images => images.map(one => one.src)")
    return [urllib.request.urlopen(source, timeout=30).read() for source in sources]


def generate(page: Page) -> None:
    page.click("#generate-go")
    page.wait_for_selector("#generate-gallery .grid-container img", timeout=60_000)


def health(url: str) -> dict[str, object]:
    return dict(json.load(urllib.request.urlopen(f"{url}/health", timeout=10)))


def until_idle(url: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while health(url)["running"] or health(url)["waiting"]:
        assert time.monotonic() < end, health(url)
        time.sleep(0.05)


def test_a_class_is_chosen_images_appear_and_the_command_draws_the_same_bytes(
    page: Page, app_url: str, tmp_path: Path
) -> None:
    open_page(page, app_url, "/?steps=4&number=3")
    choose(page, "generate-classes", "three", "7")
    page.fill(SEED, "41")
    generate(page)
    shown = fetched(page, "#generate-gallery .grid-container img")
    assert len(shown) == 6
    captions = page.locator("#generate-gallery .caption-label").all_inner_texts()
    assert captions == [f"{name} · seed {seed}" for name in ("3 three", "7 seven") for seed in (41, 42, 43)]
    assert "6 images in" in page.inner_text("#generate-progress")
    line = page.input_value("#generate-command textarea")
    assert "--batch-size" in line
    again = CliRunner().invoke(main, [*shlex.split(line)[1:], "--out", str(tmp_path / "again")])
    assert again.exit_code == 0, again.output
    files = sorted((tmp_path / "again").glob("0*.png"))
    assert [path.read_bytes() for path in files] == shown


def test_the_script_draws_the_same_pixels(
    page: Page, app_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    open_page(page, app_url, "/?steps=3&number=2&classes=5&solver=euler-maruyama")
    generate(page)
    script = page.input_value("#generate-python textarea")
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "script", "exec"), {})
    for index, data in enumerate(fetched(page, "#generate-gallery .grid-container img")):
        (tmp_path / "shown.png").write_bytes(data)
        with Image.open("shown.png") as shown, Image.open(f"{index:05}.png") as drawn:
            assert shown.tobytes() == drawn.tobytes()
            assert json.loads(shown.text["hastezoo"])["seed"] == index  # type: ignore[attr-defined]


def test_what_was_drawn_can_be_downloaded(page: Page, app_url: str, tmp_path: Path) -> None:
    import zipfile

    open_page(page, app_url, "/?steps=2&number=2&classes=1")
    generate(page)
    with page.expect_download() as download:
        page.click("#generate-zip")
    path = tmp_path / "images.zip"
    download.value.save_as(path)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == [
            "00000_class1_seed0.png",
            "00001_class1_seed1.png",
            "samples.json",
        ]
        assert archive.read("00000_class1_seed0.png") == fetched(page, "#generate-gallery .grid-container img")[0]


def test_a_long_run_shows_what_it_predicts_and_is_cancelled(page: Page, app_url: str) -> None:
    open_page(page, app_url, "/?steps=1000&number=16")
    page.click("#generate-go")
    page.wait_for_selector("#generate-preview img", timeout=60_000)
    page.wait_for_function("document.querySelector('#generate-progress').innerText.includes('left')")
    text = page.inner_text("#generate-progress")
    assert " of 1000" in text and "evaluations" in text
    assert health(app_url)["running"] == 1
    assert page.is_disabled("#generate-go")
    page.click("#generate-cancel")
    page.wait_for_selector("#generate-progress .hz-cancelled")
    assert "cancelled after step" in page.inner_text("#generate-progress")
    until_idle(app_url)
    page.wait_for_selector("#generate-go:not([disabled])")
    page.fill("#generate-steps input[type=number]", "2")
    page.keyboard.press("Tab")
    generate(page)


def test_a_page_that_is_closed_frees_the_device(chromium: Browser, app_url: str) -> None:
    page = chromium.new_page()
    open_page(page, app_url, "/?steps=1000&number=16")
    page.click("#generate-go")
    page.wait_for_selector("#generate-progress .hz-bar")
    page.close()
    until_idle(app_url)


def test_who_waits_sees_the_place(chromium: Browser, page: Page, app_url: str) -> None:
    first = chromium.new_page()
    open_page(first, app_url, "/?steps=1000&number=16")
    first.click("#generate-go")
    first.wait_for_selector("#generate-progress .hz-bar")
    open_page(page, app_url, "/?steps=2&number=1")
    page.click("#generate-go")
    page.wait_for_function("document.querySelector('#generate-progress').innerText.includes('next in the queue')")
    first.click("#generate-cancel")
    page.wait_for_selector("#generate-gallery .grid-container img")
    first.close()


def test_the_address_says_what_the_page_shows_and_opens_it_again(page: Page, app_url: str) -> None:
    query = "/?tab=generate&model=sit-xl-haste&classes=207&classes=1&seed=9007199254740993&steps=30&low=0.2"
    open_page(page, app_url, query)
    assert page.input_value("#generate-model input") == "sit-xl-haste"
    assert page.locator("#generate-classes .token").all_inner_texts() == [
        "207 golden retriever",
        "1 goldfish, Carassius auratus",
    ]
    assert page.input_value(SEED) == "9007199254740993"
    page.fill("#generate-cfg input[type=number]", "3.25")
    page.keyboard.press("Tab")
    page.wait_for_function("location.search.includes('cfg=3.25')")
    for part in ("model=sit-xl-haste", "classes=207", "classes=1", "seed=9007199254740993", "steps=30", "low=0.2"):
        assert part in page.url
    other = page.context.new_page()
    open_page(other, page.url)
    assert other.input_value("#generate-cfg input[type=number]") == "3.25"
    assert "where 0.2 <= t <= 0.72" in str(other.get_attribute("#generate-interval svg", "aria-label"))


def test_the_plot_moves_with_the_sliders(page: Page, app_url: str) -> None:
    open_page(page, app_url)
    plot = "#generate-interval svg"
    assert page.get_attribute(plot, "aria-label") == "Guidance with scale 2 where 0 <= t <= 1, none elsewhere"
    before = page.get_attribute(f"{plot} path", "d")
    page.fill("#generate-high input[type=number]", "0.5")
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelector('#generate-interval svg').ariaLabel.includes('t <= 0.5')")
    assert page.get_attribute(f"{plot} path", "d") != before


def test_another_checkpoint_brings_its_classes_and_its_protocol(page: Page, app_url: str) -> None:
    open_page(page, app_url)
    page.click("#generate-family label:has-text('SiT · 256 px')")
    page.wait_for_function("document.querySelector('#generate-model input').value === 'sit-s'")
    choose(page, "generate-classes", "golden retr")
    assert page.locator("#generate-classes .token").all_inner_texts() == ["207 golden retriever"]
    page.click("#generate-family label:has-text('MMDiT')")
    page.wait_for_selector("#generate-prompts textarea")
    assert not page.is_visible("#generate-classes")
    page.click("button:has-text('a red bus on a bridge')")
    page.wait_for_function("document.querySelector('#generate-prompts textarea').value === 'a red bus on a bridge'")
    assert page.input_value("#generate-protocol input") == "emoji"


def test_a_mistake_is_told_in_one_line(page: Page, app_url: str) -> None:
    open_page(page, app_url)
    page.fill(SEED, "1.5")
    page.click("#generate-go")
    page.wait_for_selector("text=a seed is a whole number in 0..2**63-1")
    page.fill(SEED, "2")
    page.click("#generate-random")
    page.wait_for_function("document.querySelector('#generate-seed textarea').value.length > 3")


def test_it_can_be_used_by_keyboard_alone(page: Page, app_url: str) -> None:
    open_page(page, app_url, "/?steps=2&number=1")
    page.focus("#generate-classes input")
    page.keyboard.type("nine")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#generate-gallery .grid-container img", timeout=60_000)
    assert page.locator("#generate-gallery .caption-label").all_inner_texts() == ["9 nine · seed 0"]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("tab=compare&a_model=sit-ti-digits-haste&b_steps=7&third=false&classes=4", {"compare-b-steps": "7"}),
        ("tab=sweep&axis=steps&values=1,2&cfg=3", {"sweep-cfg": "3"}),
        ("tab=evaluate&model=sit-ti-digits&number=70&steps=3", {"evaluate-number": "70", "evaluate-steps": "3"}),
    ],
)
def test_every_tab_has_an_address(page: Page, app_url: str, query: str, shown: dict[str, str]) -> None:
    open_page(page, app_url, f"/?{query}")
    if query.startswith("tab=compare"):
        page.click("#compare-b-settings > button")
    for name, value in shown.items():
        place = page.locator(f"#{name} input[type=number]").first
        place.wait_for(state="attached")
        assert place.input_value() == value
    tab = query.partition("&")[0].removeprefix("tab=")
    assert page.is_visible(f"#{tab}-go")
    page.fill(f"#{tab}-seed textarea", "17")
    page.wait_for_function("location.search.includes('seed=17')")
    for part in query.split("&"):
        assert part.replace(",", "%2C") in page.url


def test_the_zoo_leads_to_the_other_tabs(page: Page, app_url: str) -> None:
    open_page(page, app_url, "/?tab=zoo")
    page.fill("#zoo-words textarea", "haste 512")
    page.wait_for_function("document.querySelectorAll('#zoo-table tr[data-name]').length === 1")
    page.click("#zoo-table tr[data-name] button")
    page.click("#zoo-generate:has-text('sit-xl-haste-512')")
    page.wait_for_selector("#generate-go", state="visible")
    page.wait_for_function("document.querySelector('#generate-model input').value === 'sit-xl-haste-512'")
    assert page.input_value("#generate-protocol input") == "haste-512"


UNNAMED = """() => [...document.querySelectorAll('button, input, textarea, select, img, svg[role=img]')]
  .filter(one => one.offsetParent !== null && one.type !== 'hidden')
  .filter(one => !(one.ariaLabel || one.alt || one.title || one.innerText || one.placeholder || one.labels?.length
    || one.getAttribute('aria-labelledby') || one.closest('label')))
  .map(one => one.outerHTML.slice(0, 160))"""


@pytest.mark.parametrize("tab", TABS)
def test_everything_has_a_name_and_fits_a_phone(chromium: Browser, app_url: str, tab: str) -> None:
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    open_page(page, app_url, f"/?tab={tab}")
    page.wait_for_timeout(500)
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_nobody_else_is_asked_for_anything(page: Page, app_url: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_page(page, app_url, "/?steps=2&number=1")
    generate(page)
    assert [url for url in asked if not url.startswith((app_url, "data:", "blob:"))] == []


def test_it_works_behind_a_proxy_that_serves_it_under_a_path(chromium: Browser, tmp_path: Path) -> None:
    with running(tmp_path, "--root-path", "/zoo") as url, proxied(url, "/zoo") as outside:
        page = chromium.new_page()
        open_page(page, outside, "/?steps=2&number=2&classes=6")
        generate(page)
        sources = page.eval_on_selector_all("#generate-gallery .grid-container img", "all => all.map(one => one.src)")
        assert all(source.startswith(f"{outside}/gradio_api/file=") for source in sources)
        assert len(fetched(page, "#generate-gallery .grid-container img")) == 2
        page.click("button[role=tab]:has-text('Compare')")
        page.click("#compare-go")
        page.wait_for_selector("#compare-result img", state="attached", timeout=60_000)
        assert fetched(page, "#compare-result img")
        page.close()

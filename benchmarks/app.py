"""How soon the app answers and paints, what a generation costs through it, and whether its memory grows.

    python benchmarks/app.py [--generations 50] [--starts 3]

Starts `python app.py` as a process of its own several times and takes the time to its first answer (HTTP) and, where
chromium is installed, from the request to the first contentful paint and to the Generate button. Then images are drawn
through the API, 16 digits of 25 steps a time, alternating with nothing else on the machine, and held against the same
call of the pipeline in this process (the baseline); and 50 generations with a switch of the checkpoint at every fifth,
after each of which the server's resident memory is read. Writes benchmarks/results/app.json.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from dated import RESULTS, date_and_device

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("sit-ti-digits-haste", "sit-ti-digits", "sit-ti-digits-repa")
IMAGES, WARM = 16, 5


@contextlib.contextmanager
def started(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, float]]:
    """(process, address, seconds to the first answer)."""
    began = time.perf_counter()
    log = folder / "log.txt"
    with log.open("w") as stream:
        command = [sys.executable, str(ROOT / "app.py"), "--port", "0", "--outputs", str(folder / "out")]
        process = subprocess.Popen(command, cwd=folder, stderr=stream, stdout=stream)
    try:
        while not (found := re.search(r"http://[\d.]+:\d+", log.read_text())):
            time.sleep(0.01)
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(found[0], timeout=10).read()
                break
            time.sleep(0.01)
        yield process, found[0], time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def painted(url: str) -> dict[str, float]:
    """Seconds from the request to the first contentful paint, and to the page's button."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None:
        return {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        began = time.perf_counter()
        page.goto(url)
        page.wait_for_selector("#generate-go")
        button = time.perf_counter() - began
        entry = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        found = {"first_paint": page.evaluate(entry) / 1000, "button": button}
        browser.close()
    return found


def resident(process: subprocess.Popen[bytes]) -> float:
    """MiB."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    assert found
    return int(found[1]) / 1024


def generated(client: Any, model: str, seed: int) -> float:
    """Seconds of one generation through the API."""
    began = time.perf_counter()
    client.predict(model=model, classes=[seed % 10], number=IMAGES, seed=str(seed), api_name="/generate")
    return time.perf_counter() - began


def baseline(rounds: int) -> list[float]:
    """Seconds of the same images by the pipeline alone."""
    from hastezoo import Pipeline

    pipe = Pipeline.from_pretrained(MODELS[0])
    seconds = []
    for seed in range(rounds + WARM):
        began = time.perf_counter()
        pipe(classes=[seed % 10] * IMAGES, seeds=range(seed, seed + IMAGES))
        seconds.append(time.perf_counter() - began)
    return seconds[WARM:]


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }


@click.command()
@click.option("--generations", default=50, show_default=True)
@click.option("--starts", default=3, show_default=True)
def main(generations: int, starts: int) -> None:
    """Measure and write benchmarks/results/app.json."""
    from gradio_client import Client

    answers, paints, buttons = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(starts):
            place = Path(folder) / str(number)
            place.mkdir()
            with started(place) as (_, url, seconds):
                answers.append(seconds)
                found = painted(url)
                paints += [found["first_paint"]] if found else []
                buttons += [found["button"]] if found else []
        with started(Path(folder)) as (process, url, _):
            client = Client(url, verbose=False, download_files=False)
            first = generated(client, MODELS[0], 0)
            through = [generated(client, MODELS[0], seed) for seed in range(20 + WARM)][WARM:]
            memory = []
            for number in range(generations):
                generated(client, MODELS[number // 5 % len(MODELS)], number)
                memory.append(resident(process))
    alone = baseline(20)
    result = {
        **date_and_device(),
        "seconds_to_first_answer": spread(answers),
        "seconds_from_request_to_first_paint": spread(paints) if paints else None,
        "seconds_from_request_to_button": spread(buttons) if buttons else None,
        "seconds_of_first_generation": round(first, 3),
        "seconds_of_a_generation": spread(through),
        "seconds_by_the_pipeline_alone": spread(alone),
        "app_over_pipeline": round(statistics.median(through) / statistics.median(alone), 2),
        "resident_mib": [round(one, 1) for one in memory],
        "growth_mib_over_the_last_half": round(memory[-1] - memory[len(memory) // 2], 1),
    }
    (RESULTS / "app.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

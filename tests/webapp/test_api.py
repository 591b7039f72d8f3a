"""What programs call, by the real client and by raw HTTP: answers, refusals, the queue, clients that go."""

from __future__ import annotations

import inspect
import itertools
import json
import math
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from gradio_client import Client
from PIL import Image

from hastezoo.pipeline import Pipeline
from hastezoo.zoo.registry import DEFAULT_CHECKPOINT
from tests.webapp.serving import Served, serving

FEW = {"model": DEFAULT_CHECKPOINT, "steps": 2}
PARAMETERS = (
    "model", "classes", "prompts", "negative", "number", "seed", "protocol", "solver", "steps", "cfg", "low", "high",
)  # fmt: skip
USUAL: dict[str, Any] = {
    "model": DEFAULT_CHECKPOINT, "classes": [3], "prompts": [], "negative": "", "number": 1, "seed": "0",
    "protocol": "", "solver": "", "steps": 2, "cfg": None, "low": None, "high": None,
}  # fmt: skip
# Of each parameter what it cannot be, and a word of what is answered.
WRONG: list[tuple[str, Any, str]] = [
    ("model", "sit-ti-digit", "nearest: sit-ti-digits"),
    ("model", "../../etc/passwd", "unknown model"),
    ("model", "", "model: field required"),
    ("model", ["sit-ti-digits"], "model: input should be a valid string"),
    ("classes", ["eleven"], "unknown class 'eleven'"),
    ("classes", [10], "class 10 is out of range"),
    ("classes", [-1], "class -1 is out of range"),
    ("classes", [3, "three"], "class 3 is asked for twice"),
    ("classes", {"a": 1}, "classes: input should be a valid list"),
    ("classes", list(range(2000)), "classes: list should have at most 1000 items"),
    ("prompts", ["a red bus"], "draws classes, not text"),
    ("prompts", 7, "prompts: input should be a valid list"),
    ("negative", "blur", "draws classes, not text"),
    ("negative", "\x00", "control character"),
    ("number", 0, "number: input should be greater than or equal to 1"),
    ("number", 65, "65 images are more than the 64"),
    ("number", "many", "number: input should be a valid integer"),
    ("seed", "-1", "seed: a seed is a whole number"),
    ("seed", "1e3", "seed: a seed is a whole number"),
    ("seed", 1.5, "seed: a seed is a whole number"),
    ("seed", str(2**63), "seed: input should be less than or equal to"),
    ("protocol", "hasty", "unknown protocol 'hasty'; nearest: haste"),
    ("solver", "ddim", "unknown solver 'ddim'"),
    ("steps", 0, "steps: input should be greater than or equal to 1"),
    ("steps", 2.5, "steps: input should be a valid integer"),
    ("steps", 30_000, "more than the 20,000 image steps"),
    ("cfg", -1, "cfg: input should be greater than or equal to 0"),
    ("cfg", math.nan, "cfg: input should be a finite number"),
    ("cfg", "strong", "cfg: input should be a valid number"),
    ("low", 0.9, "interval (0.9, 0.5)"),
    ("low", -0.1, "interval (-0.1, 0.5)"),
    ("high", 1.1, "interval (0, 1.1)"),
    ("high", math.inf, "high: input should be a finite number"),
]


@pytest.fixture(scope="module")
def client(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(served.url, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def test_the_endpoints_have_these_names_and_parameters(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    named = {name: tuple(one["parameter_name"] for one in info["parameters"]) for name, info in endpoints.items()}
    assert named.pop("/generate") == PARAMETERS
    assert named.pop("/evaluate") == (
        "model", "reference", "number", "seed", "labels", "allow_few", *PARAMETERS[6:]
    )  # fmt: skip
    assert named.pop("/cancel") == ("ticket",)
    assert named.pop("/classes") == ("model",)
    assert {named.pop("/checkpoints"), named.pop("/status")} == {()}
    assert not named, "the page's own events are no part of the API"


def test_images_come_as_files_with_what_makes_them_again(client: Client) -> None:
    answer = client.predict(classes=["three", 7], number=2, seed="5", steps=3, cfg=1.5, api_name="/generate")
    expected = Pipeline.from_pretrained()(classes=[3, 3, 7, 7], seeds=[5, 6, 5, 6], batch_size=4, steps=3, cfg=1.5)
    for path, pixels in zip(answer["images"], expected.pixels, strict=True):
        assert Image.open(path).tobytes() == pixels.tobytes()
    assert answer["classes"] == [3, 3, 7, 7]
    assert answer["seeds"] == ["5", "6", "5", "6"]
    assert answer["command"].startswith("hastezoo sample --model sit-ti-digits-haste --class 3 --class 7 --seed 5 -n 2")
    assert Path(answer["archive"]).stat().st_size > 0


def test_a_seed_beyond_what_a_browser_counts_is_exact(client: Client) -> None:
    seed = 2**53 + 1
    answer = client.predict(classes=[1], seed=str(seed), steps=1, api_name="/generate")
    assert answer["seeds"] == [str(seed)]


def test_the_first_answer_names_the_ticket_and_the_place(client: Client) -> None:
    job = client.submit(**FEW, api_name="/generate")
    job.result(timeout=60)
    first, *_, last = job.outputs()
    assert first["state"] in ("waiting", "running")
    assert first["ticket"] == last["ticket"]
    assert last["state"] == "done"


@pytest.mark.parametrize(("name", "value", "said"), WRONG, ids=lambda one: repr(one)[:40])
def test_a_wrong_value_is_answered_with_one_line(
    served: Served, capfd: pytest.CaptureFixture[str], name: str, value: Any, said: str
) -> None:
    usual = {**USUAL, "high": 0.5} if name == "low" else USUAL
    (event, answer), *more = served.call("generate", *{**usual, name: value}.values())
    assert not more
    assert event == "error"
    assert said.lower() in answer["error"].lower()
    assert "\n" not in answer["error"] and "Traceback" not in json.dumps(answer)
    assert "Traceback" not in capfd.readouterr().err
    assert served.studio.turns.counts() == {"running": 0, "waiting": 0}


WRONG_EVALUATION: list[tuple[str, Any, str]] = [
    ("model", "sit-ti", "unknown model 'sit-ti'"),
    ("model", "mmdit-coco", "draws from text"),
    ("reference", "/etc/passwd", "no reference is called '/etc/passwd'"),
    ("reference", "imagenet256", "the reference imagenet256 is not on this server"),
    ("number", 0, "number: input should be greater than or equal to 1"),
    ("number", 3 * 10**7, "more than the 20,000,000 image steps"),
    ("number", 10, "10 samples"),  # fewer than the features have dimensions
    ("seed", "x", "seed: a seed is a whole number"),
    ("labels", "sorted", "labels: input should be 'random' or 'balanced'"),
    ("allow_few", "maybe", "allow_few: input should be a valid boolean"),
    ("protocol", "x", "unknown protocol 'x'"),
    ("solver", "x", "unknown solver 'x'"),
    ("steps", -1, "steps: input should be greater than or equal to 1"),
    ("cfg", "x", "cfg: input should be a valid number"),
    ("low", 2, "interval (2, 1)"),
    ("high", "x", "high: input should be a valid number"),
]


@pytest.mark.parametrize(("name", "value", "said"), WRONG_EVALUATION, ids=lambda one: repr(one)[:40])
def test_a_wrong_evaluation_is_answered_with_one_line(
    served: Served, capfd: pytest.CaptureFixture[str], name: str, value: Any, said: str
) -> None:
    usual = {
        "model": DEFAULT_CHECKPOINT, "reference": "digits", "number": 70, "seed": "0", "labels": "", "allow_few": False,
        "protocol": "", "solver": "", "steps": 1, "cfg": None, "low": None, "high": None,
    }  # fmt: skip
    event, answer = served.call("evaluate", *{**usual, name: value}.values())[-1]
    assert event == "error"
    assert said.lower() in answer["error"].lower() and "\n" not in answer["error"]
    assert "Traceback" not in capfd.readouterr().err


def test_an_evaluation_comes_with_its_numbers_and_files(client: Client) -> None:
    job = client.submit(number=70, steps=1, api_name="/evaluate")
    answer = job.result(timeout=120)
    assert answer["settings"]["count"] == 70
    assert answer["metrics"]["fid"]["value"] > 0
    written = json.loads(Path(answer["files"][0]).read_text())
    assert written["metrics"] == answer["metrics"]
    assert answer["command"].startswith("hastezoo eval-fid --model sit-ti-digits-haste")


def test_every_parameter_was_given_something_wrong() -> None:
    assert {name for name, _, _ in WRONG} == set(PARAMETERS)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"data": 3}', b'{"data": []}', b'{"data": [1, 2]}', b'{"data": ["x"]}' * 2]
)
def test_a_body_that_is_none_is_refused(served: Served, body: bytes) -> None:
    status, answer = served.post("/gradio_api/call/generate", body)
    if status == 200:  # taken, and refused then
        (event, answer), *_ = list(served.events(f"/gradio_api/call/generate/{answer['event_id']}"))
        assert event == "error"
    else:
        assert 400 <= status < 500
    assert "Traceback" not in json.dumps(answer)


def test_twenty_requests_at_once_are_answered_or_refused_in_order(tmp_path: Path) -> None:
    """1 runs and 8 wait; never two are on the device, and who came first is served first."""
    inside, most, order = 0, 0, []
    lock = threading.Lock()
    with serving(tmp_path, waiting=8) as app:
        client = Client(app.url, verbose=False, download_files=False)
        client.predict(**FEW, api_name="/generate")  # what is loaded once
        draw = Pipeline.draw

        def watched(self: Pipeline, conditions: Any, seeds: Any, *rest: Any, **named: Any) -> Any:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
                order.append(seeds[0])
            time.sleep(0.05)
            try:
                return draw(self, conditions, seeds, *rest, **named)
            finally:
                with lock:
                    inside -= 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Pipeline, "draw", watched)
            jobs = [client.submit(**FEW, seed=str(seed), api_name="/generate") for seed in range(20)]
            answers = [job.exception(timeout=120) or job.result() for job in jobs]
        app.idle()
    refused = [one for one in answers if isinstance(one, Exception)]
    served = [one["seeds"][0] for one in answers if not isinstance(one, Exception)]
    assert len(served) + len(refused) == 20
    assert len(served) >= 9
    assert all("the queue is full: 8 requests wait; try again in a minute" in str(one) for one in refused)
    assert most == 1
    assert sorted(map(int, served)) == sorted(order)


def test_who_came_first_is_served_first(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    draw = Pipeline.draw

    def watched(self: Pipeline, conditions: Any, seeds: Any, *rest: Any, **named: Any) -> Any:
        order.append(seeds[0])
        return draw(self, conditions, seeds, *rest, **named)

    monkeypatch.setattr(Pipeline, "draw", watched)
    ids = []
    for seed in range(8):
        status, answer = served.post("/gradio_api/call/generate", {"data": list({**USUAL, "seed": seed}.values())})
        assert status == 200
        ids.append(answer["event_id"])
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda id: list(served.events(f"/gradio_api/call/generate/{id}"))[-1], ids))
    assert [event for event, _ in ends] == ["complete"] * 8
    assert order == list(range(8))


LONG = {**USUAL, "steps": 5000, "number": 4}  # minutes, if nobody stops it


def started(served: Served, count: int = 1) -> None:
    """Wait until so many requests are in the queue or at work."""
    end = time.monotonic() + 30
    while sum(served.studio.turns.counts().values()) < count:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_client_that_disconnects_frees_the_device(served: Served) -> None:
    before = set(served.studio.outputs.images.iterdir())
    _, answer = served.post("/gradio_api/call/generate", {"data": list(LONG.values())})
    place = urlparse(served.url)
    with socket.create_connection((place.hostname, place.port)) as line:
        path = f"/gradio_api/call/generate/{answer['event_id']}"
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
        started(served)
        assert line.recv(100)
    served.idle(20)  # 20,000 steps take far longer
    assert set(served.studio.outputs.images.iterdir()) == before, "it was not stopped"
    assert served.call("generate", *USUAL.values())[-1][0] == "complete"


def test_a_waiting_client_that_disconnects_gives_up_its_place(served: Served) -> None:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(served.call, "generate", *LONG.values())
        started(served)
        _, answer = served.post("/gradio_api/call/generate", {"data": list(LONG.values())})
        started(served, 2)
        place = urlparse(served.url)
        with socket.create_connection((place.hostname, place.port)) as line:
            path = f"/gradio_api/call/generate/{answer['event_id']}"
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
            assert line.recv(100)
        end = time.monotonic() + 20
        while served.studio.turns.counts()["waiting"]:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert served.studio.turns.counts()["running"] == 1
        running = served.studio.turns._running
        assert running is not None and served.studio.turns.cancel(running.id)
        assert first.result(30)[-1] == ("error", first.result()[-1][1])
    served.idle()


def test_a_ticket_cancels_its_request(client: Client, served: Served) -> None:
    job = client.submit(**{**FEW, "steps": 5000, "number": 4}, api_name="/generate")
    started(served)
    while not job.outputs():
        time.sleep(0.01)
    ticket = job.outputs()[0]["ticket"]
    assert client.predict(ticket=ticket, api_name="/cancel") is True
    with pytest.raises(Exception, match="cancelled"):
        job.result(timeout=30)
    assert client.predict(ticket=ticket, api_name="/cancel") is False
    assert client.predict(ticket="somebody's", api_name="/cancel") is False
    served.idle()
    assert not (served.studio.outputs.images / ticket).exists()


def test_what_can_be_looked_at(client: Client) -> None:
    cards = client.predict(api_name="/checkpoints")
    assert DEFAULT_CHECKPOINT in {card["name"] for card in cards}
    assert client.predict(model="sit-xl", api_name="/classes")[207] == "golden retriever"
    assert client.predict(model="mmdit-coco", api_name="/classes") == []
    with pytest.raises(Exception, match="nearest: sit-xl"):
        client.predict(model="sit-xxl", api_name="/classes")
    status = client.predict(api_name="/status")
    assert (status["status"], status["running"], status["waiting"]) == ("ok", 0, 0)
    assert status["limits"]["max_images"] == 64


GARBAGE: list[Any] = [None, "x" * 50, 1e400, ["x", None, {}], {"path": "/etc/passwd", "a": {}}]


def test_no_event_of_the_page_trips_over_garbage(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    """The page's own events can be called by anybody too."""
    _, config = served.get("/config")
    events = [event for event in json.loads(config)["dependencies"] if event["backend_fn"]]
    assert len(events) > 30

    def answered(number: int, event: dict[str, Any], junk: Any) -> str:
        """The last answer of an event called with nothing but junk."""
        session = f"garbage{number}"
        body = {"data": [junk] * len(event["inputs"]), "fn_index": event["id"], "session_hash": session}
        status, answer = served.post("/gradio_api/queue/join", body)
        assert status == 200, (event["api_name"], status, answer)
        for _, one in served.events(f"/gradio_api/queue/data?session_hash={session}"):
            if one["msg"] in ("process_completed", "close_stream"):
                break
        return json.dumps(one)

    with ThreadPoolExecutor(8) as pool:
        pairs = itertools.product(events, GARBAGE)
        tried = [pool.submit(answered, number, *pair) for number, pair in enumerate(pairs)]
        for one in tried:
            assert "Traceback" not in one.result() and "TypeError" not in one.result()
    served.idle()
    err = capfd.readouterr().err
    assert "Traceback" not in err, err[-3000:]


def test_the_parameters_are_documented() -> None:
    from hastezoo.webapp import forms

    fields = set(forms.DrawForm.model_fields)
    assert fields == set(PARAMETERS)
    assert inspect.getdoc(forms.DrawForm)

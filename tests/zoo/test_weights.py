"""Finding weights: the order of places, what is verified, and what is said where there are none."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from hastezoo.errors import UserError
from hastezoo.loading import load_network
from hastezoo.zoo import store
from hastezoo.zoo.importing import import_file
from hastezoo.zoo.modelfile import save_model
from hastezoo.zoo.registry import find_card
from hastezoo.zoo.verify import verify
from hastezoo.zoo.weights import is_here, resolve
from tests.local_hub import LocalHub
from tests.zoo.cards import origin, write_card
from tests.zoo.foreign import random_sit, save_repa, state_of

REPO = "someone/model"


def test_corrupted_embedded_file_is_refused(tmp_path: Path) -> None:
    card = find_card("sit-ti-digits").model_copy()
    data = bytearray(resolve(card).path.read_bytes())
    data[-1] ^= 1
    card._folder = tmp_path
    (tmp_path / "sit-ti-digits.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=r"corrupted \(sha256"):
        resolve(card)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    card = find_card("sit-ti-digits").model_copy()
    card._folder = tmp_path
    with pytest.raises(UserError, match="missing"):
        resolve(card)


def test_card_without_weights_says_how_to_train_them() -> None:
    card = find_card("sit-ti-digits").model_copy(update={"weights": None, "status": "recipe-only", "name": "mine"})
    with pytest.raises(UserError, match=r"python -m hastezoo\.recipes\.digits"):
        resolve(card)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    save_repa(tmp_path / "last.pt", random_sit(), attn_coeff=0.5)
    return tmp_path / "last.pt"


def ours(path: Path, seed: int = 0) -> bytes:
    model = random_sit(seed)
    save_model(path, model, "sit", weights="ema")
    return path.read_bytes()


def test_order_of_places(own_home: Path, local_hub: LocalHub, foreign: Path, tmp_path: Path) -> None:
    """Named file, named place on the Hub, store, the card's repository, its link: each wins over what follows."""
    first = ours(tmp_path / "hub.safetensors", seed=1)
    local_hub.files[REPO, "model.safetensors"] = first
    local_hub.files["x/y", "last.pt"] = foreign.read_bytes()
    link = f"{local_hub.url}/cdn/{hashlib.sha256(foreign.read_bytes()).hexdigest()}"
    by_link = origin(url=link, file="last.pt", format="haste")
    by_hub = origin(repo=REPO, file="model.safetensors", format="hastezoo")
    card = write_card(own_home, origins=by_link)
    assert resolve(card).source == f"the store (from {link})"
    store.remove("tiny")
    card = write_card(own_home, origins=by_hub + by_link)
    assert resolve(card).source == f"hub:{REPO}:model.safetensors"
    import_file(card, foreign)
    assert resolve(card).source == f"the store (from {foreign})"
    named = resolve(card, "hub:x/y")
    assert named.foreign and named.source == "hub:x/y" and named.path.name == "last.pt"
    assert resolve(card, foreign).path == foreign


def test_all_places_give_the_same_network(own_home: Path, local_hub: LocalHub, foreign: Path, tmp_path: Path) -> None:
    local_hub.files["x/y", "last.pt"] = foreign.read_bytes()
    local_hub.files["x/z", "model.safetensors"] = ours(tmp_path / "hub.safetensors")
    card = write_card(own_home, origins=origin(repo="x/y", file="last.pt", format="haste"))
    expected = state_of(random_sit())
    for weights in (None, foreign, "hub:x/y", "hub:x/z"):
        network = load_network(card, resolve(card, weights))
        state = network.state_dict()
        assert all(torch.equal(state[key], expected[key]) for key in expected) and state.keys() == expected.keys()
        assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())


def test_foreign_weights_are_fetched_and_converted_once(own_home: Path, local_hub: LocalHub, foreign: Path) -> None:
    data = foreign.read_bytes()
    local_hub.files["x/y", "last.pt"] = data
    link = f"{local_hub.url}/cdn/{hashlib.sha256(data).hexdigest()}"
    told: list[str] = []
    sha = hashlib.sha256(data).hexdigest()
    card = write_card(own_home, origins=origin(url=link, file="last.pt", format="haste", sha256=sha))
    found = resolve(card, say=told.append)
    assert [line.split()[0] for line in told] == ["fetching", "converting"]
    record = store.find("tiny").record  # type: ignore[union-attr]
    assert (record.source_sha256, record.sha256, record.step) == (sha, found.sha256, 1234)
    asked = len(local_hub.requests)
    assert resolve(card, say=told.append) == found
    assert len(local_hub.requests) == asked and len(told) == 2
    assert not list((own_home / "downloads").rglob("*.pt")), "the link's file is not needed any more"


def test_an_interrupted_conversion_does_not_fetch_again(
    own_home: Path, local_hub: LocalHub, foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = foreign.read_bytes()
    local_hub.files["x/y", "last.pt"] = data
    link = f"{local_hub.url}/cdn/{hashlib.sha256(data).hexdigest()}"
    card = write_card(own_home, origins=origin(url=link, file="last.pt", format="haste"))
    with monkeypatch.context() as patched:
        patched.setattr("hastezoo.zoo.importing.write_weights", interrupt)
        with pytest.raises(KeyboardInterrupt):
            resolve(card)
    assert store.find("tiny") is None and local_hub.sent == len(data)
    assert resolve(card).source == f"the store (from {link})" and local_hub.sent == len(data)


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_fetched_file_that_does_not_fit_is_not_kept(own_home: Path, local_hub: LocalHub, foreign: Path) -> None:
    data = foreign.read_bytes()
    local_hub.files["x/y", "last.pt"] = data
    link = f"{local_hub.url}/cdn/{hashlib.sha256(data).hexdigest()}"
    card = write_card(own_home, config={"depth": 2}, origins=origin(url=link, file="last.pt", format="haste"))
    with pytest.raises(UserError, match="holds other weights than tiny has: they have depth 3"):
        resolve(card)
    assert list((own_home / "downloads").rglob("*.pt*")) == []


def test_another_sha256_never_loads(own_home: Path, local_hub: LocalHub, foreign: Path) -> None:
    local_hub.files["x/y", "last.pt"] = foreign.read_bytes()
    link = f"{local_hub.url}/cdn/{hashlib.sha256(foreign.read_bytes()).hexdigest()}"
    for place in ({"repo": "x/y"}, {"url": link}):
        card = write_card(own_home, origins=origin(**place, file="last.pt", format="haste", sha256="0" * 64))
        with pytest.raises(UserError, match=r"the card says 0{12}\.\.\.: not loaded"):
            resolve(card)
        assert store.find("tiny") is None


def test_another_size_than_the_cards_never_loads(own_home: Path, local_hub: LocalHub, foreign: Path) -> None:
    local_hub.files["x/y", "last.pt"] = foreign.read_bytes()
    card = write_card(own_home, origins=origin(repo="x/y", file="last.pt", format="haste", bytes=7))
    with pytest.raises(UserError, match=r"bytes, the card says 7: not loaded"):
        resolve(card)


def test_our_own_file_in_the_hubs_cache_is_here(own_home: Path, local_hub: LocalHub, tmp_path: Path) -> None:
    data = ours(tmp_path / "x.safetensors")
    local_hub.files[REPO, "model.safetensors"] = data
    card = write_card(own_home, status="hub", origins=origin(repo=REPO, file="model.safetensors", format="hastezoo"))
    assert not is_here(card)
    with pytest.raises(UserError, match="is not on this machine"):
        verify(card)
    found = resolve(card)
    asked = len(local_hub.requests)
    assert is_here(card) and resolve(card, local=True) == found and all(check.good for check in verify(card))
    assert len(local_hub.requests) == asked and found.sha256 == hashlib.sha256(data).hexdigest()


def test_the_next_origin_is_tried(own_home: Path, local_hub: LocalHub, foreign: Path) -> None:
    local_hub.files["x/y", "last.pt"] = foreign.read_bytes()
    gone = origin(repo="no/body", file="last.pt", format="haste")
    card = write_card(own_home, origins=gone + origin(repo="x/y", file="last.pt", format="haste"))
    assert resolve(card).source == "the store (from hub:x/y:last.pt)"
    card = write_card(own_home, "other", origins=gone)
    with pytest.raises(
        UserError, match=r"other could not be fetched: .*no such repository.*hastezoo import other last\.pt"
    ):
        resolve(card)


def test_a_page_is_named_with_the_command_that_follows(own_home: Path) -> None:
    card = write_card(own_home, origins=origin(page="https://drive.example/x", file="2.pt", format="haste"))
    with pytest.raises(UserError, match=r"get 2\.pt at https://drive\.example/x, then `hastezoo import tiny 2\.pt`"):
        resolve(card)


def test_stored_weights_that_changed_are_refused(own_home: Path, foreign: Path) -> None:
    card = write_card(own_home)
    entry = import_file(card, foreign)
    data = bytearray(entry.path.read_bytes())
    data[-1] ^= 1
    entry.path.write_bytes(data)
    with pytest.raises(UserError, match="have changed since they were written"):
        resolve(card)


def test_a_large_file_is_hashed_once(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hastezoo import digests

    path = tmp_path / "large"
    path.write_bytes(bytes(digests.SMALL + 1))
    calls = []
    monkeypatch.setattr(digests, "sha256_of", lambda path: calls.append(path) or "0" * 64)
    assert digests.recorded_sha256(path) == digests.recorded_sha256(path) == "0" * 64
    assert len(calls) == 1
    os.utime(path, ns=(1, 1))
    digests.recorded_sha256(path)
    assert len(calls) == 2, "another time of change means another look"


def test_weights_that_are_not_there(own_home: Path, tmp_path: Path) -> None:
    card = write_card(own_home)
    with pytest.raises(UserError, match="there is no file nothing"):
        resolve(card, tmp_path.joinpath("nothing").relative_to(tmp_path))
    with pytest.raises(UserError, match="did you mean hub:owner/name"):
        resolve(card, "owner/name")
    with pytest.raises(UserError, match="is a folder"):
        resolve(card, tmp_path)


def _resolve_in_a_process(home: str, name: str, url: str, results: multiprocessing.Queue[str]) -> None:
    os.environ["HASTEZOO_HOME"] = home
    results.put(resolve(find_card(name)).sha256)


def test_two_processes_fetch_and_convert_once(own_home: Path, local_hub: LocalHub, foreign: Path) -> None:
    data = foreign.read_bytes()
    local_hub.files["x/y", "last.pt"] = data
    link = f"{local_hub.url}/cdn/{hashlib.sha256(data).hexdigest()}"
    write_card(own_home, origins=origin(url=link, file="last.pt", format="haste"))
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (str(own_home), "tiny", link, results)
    running = [context.Process(target=_resolve_in_a_process, args=arguments) for _ in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0, 0]
    found = {results.get(timeout=10) for _ in running}
    assert len(found) == 1 and local_hub.sent == len(data)


def test_a_store_whose_making_was_killed_is_whole_again(own_home: Path, foreign: Path) -> None:
    card = write_card(own_home)
    entry = import_file(card, foreign)
    old = entry.folder.with_name(".tiny.old")
    entry.folder.rename(old)  # killed between the two renames
    (entry.folder.with_name(".tiny.new")).mkdir()
    assert store.entries() == []
    with pytest.raises(RuntimeError), store.making("tiny"):
        assert store.find("tiny") is not None, "the old weights are back before new ones are made"
        raise RuntimeError
    assert store.find("tiny") == entry and store.entries() == ["tiny"]


def test_what_killed_processes_leave_is_shown_and_removed(own_home: Path) -> None:
    for path in ("weights/.tiny.new/.model.safetensors.7.partial", "downloads/tiny/last.pt.part"):
        (own_home / path).parent.mkdir(parents=True)
        (own_home / path).write_bytes(bytes(1000))
    assert store.entries() == [] and store.unfinished() == {"tiny": 2000}
    assert store.remove("tiny") == 2000 and store.unfinished() == {}
    assert not list(own_home.rglob("*.part*"))


def test_a_broken_record_says_what_to_do(own_home: Path, foreign: Path) -> None:
    entry = import_file(write_card(own_home), foreign)
    for text in ("{", "{}", "[]"):
        (entry.folder / "record.json").write_text(text)
        with pytest.raises(UserError, match="hastezoo cache remove tiny"):
            store.find("tiny")
    assert store.remove("tiny") > 0 and store.entries() == []


@pytest.mark.parametrize("name", ["../treasure", "{tmp}/treasure", "a/b", ".", "..", "", "a\\b", "-x"])
def test_names_do_not_leave_the_store(own_home: Path, tmp_path: Path, name: str) -> None:
    for folder in (tmp_path / "treasure", own_home / "treasure", own_home / "weights" / "a" / "b"):
        folder.mkdir(parents=True)
        (folder / "kept").write_text("x")
    with pytest.raises(UserError, match="is no name of a checkpoint"):
        store.remove(name.format(tmp=tmp_path))
    assert len(list(tmp_path.rglob("kept"))) == 3


def test_removing_stays_in_the_store_whatever_the_name_check_lets_through(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second fence: only files directly in a folder directly in the store are ever removed."""
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "kept").write_text("x")
    (own_home / "weights").mkdir(parents=True)
    (own_home / "weights" / "link").symlink_to(treasure)
    with pytest.raises(UserError, match="nothing was removed"):
        store.remove("link")
    monkeypatch.setattr(store, "folder_of", lambda name: treasure)
    with pytest.raises(UserError, match="nothing was removed"):
        store.remove("x")
    assert (treasure / "kept").exists()

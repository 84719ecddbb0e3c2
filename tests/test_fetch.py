"""Data from a mirror, the cache and a small web server of the test's own."""

import hashlib
import json
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from analysis_lib.data import download, fetch
from analysis_lib.errors import ChecksumError, MissingDataError, StorageError, UnknownNameError
from analysis_lib.paths import cache_dir

FILES = {
    "tones/low.wav": b"low tone " * 400,
    "tones/high.wav": b"high tone " * 500,
    "a b.csv": b"x",
}


class Web(BaseHTTPRequestHandler):
    """Serves ``server.files`` with byte ranges; notes every request; can break off."""

    def do_GET(self):
        server, name = self.server, self.path.lstrip("/").replace("%20", " ")
        wanted = self.headers.get("Range", "")
        server.requests.append((name, wanted))
        if name not in server.files:
            return self.send_error(404)
        body = server.files[name]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start and start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        middle = (start + len(body)) // 2
        self.wfile.write(body[start : server.break_off or middle])
        if server.break_off is None:
            time.sleep(server.pause)
            self.wfile.write(body[middle:])

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.files, server.requests = dict(FILES), []
    server.ranges, server.break_off, server.pause = True, None, 0
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def small_registry(web, tmp_path, monkeypatch):
    """The only data set is ``tones``, on the test's server, and there is no mirror."""
    folder = tmp_path / "registry"
    folder.mkdir()
    rows = [
        f"{name},{len(body)},{hashlib.sha256(body).hexdigest()},{name.replace(' ', '%20')}"
        for name, body in FILES.items()
    ]
    head = [f"# url: {web.url}/{{path}}", "# licence: CC0", "# citation: nobody2015tones"]
    (folder / "tones.csv").write_text("\n".join([*head, "file,bytes,sha256,path", *rows]))
    monkeypatch.setattr(fetch, "_REGISTRIES", folder)
    monkeypatch.delenv("BRAINBOOK_DATA", raising=False)
    fetch.registry.cache_clear()
    yield
    fetch.registry.cache_clear()


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    root = tmp_path / "mirror"
    for name, body in FILES.items():
        file = root / "tones" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    monkeypatch.setenv("BRAINBOOK_DATA", str(root))
    return root / "tones"


def names_requested(web):
    return [name for name, _ in web.requests]


def files_in(folder):
    """Names of all files that hold something."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.stat().st_size]
    return sorted(str(file.relative_to(folder)) for file in files)


def test_download_puts_every_file_in_the_cache(web, caplog):
    caplog.set_level("INFO", logger="brainbook")
    folder = fetch.fetch("tones")
    assert folder == cache_dir("data", "tones")
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert "fetching 3 files of tones, 0.0 MB" in caplog.text
    assert fetch.path("tones", "a b.csv").read_bytes() == b"x"


def test_what_is_there_is_not_fetched_again(web):
    fetch.fetch("tones", "tones/*")
    assert sorted(names_requested(web)) == ["tones/high.wav", "tones/low.wav"]
    fetch.fetch("tones")
    assert names_requested(web)[2:] == ["a b.csv"]


def test_path_fetches_one_file_only(web):
    assert fetch.path("tones", "tones/low.wav").read_bytes() == FILES["tones/low.wav"]
    assert names_requested(web) == ["tones/low.wav"]


def test_the_mirror_comes_first(web, mirror):
    assert fetch.fetch("tones") == mirror
    assert web.requests == [] and not cache_dir("data", "tones").exists()


def test_what_the_mirror_lacks_is_fetched_beside_a_copy_of_the_rest(web, mirror):
    (mirror / "a b.csv").unlink()
    folder = fetch.fetch("tones")
    assert folder == cache_dir("data", "tones")
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert names_requested(web) == ["a b.csv"]


def test_a_flipped_byte_in_the_mirror_names_the_file(web, mirror):
    file = mirror / "tones" / "low.wav"
    damaged = bytearray(file.read_bytes())
    damaged[100] ^= 1
    file.write_bytes(damaged)
    expected = (
        rf"{file} is not the registered file \(SHA-256 differs\), so it was not used. Replace"
    )
    with pytest.raises(ChecksumError, match=expected):
        fetch.fetch("tones")
    assert web.requests == [] and file.read_bytes() == damaged


def test_a_damaged_cached_file_is_set_aside_and_fetched_again(web, caplog):
    file = fetch.path("tones", "tones/low.wav")
    file.write_bytes(b"damaged")
    assert fetch.path("tones", "tones/low.wav").read_bytes() == FILES["tones/low.wav"]
    assert file.with_name("low.wav.mismatch").read_bytes() == b"damaged"
    assert "low.wav was damaged: set aside as low.wav.mismatch" in caplog.text


def test_a_file_other_than_the_registered_one_is_not_kept(web):
    web.files["tones/low.wav"] = b"LOW tone " * 400
    message = r"tones/low.wav did not deliver the registered low.wav \(SHA-256 differs\)"
    with pytest.raises(ChecksumError, match=message):
        fetch.path("tones", "tones/low.wav")
    assert files_in(cache_dir("data")) == []
    web.files["tones/low.wav"] = FILES["tones/low.wav"]
    assert fetch.path("tones", "tones/low.wav").read_bytes() == FILES["tones/low.wav"]


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_an_interrupted_download_goes_on(web, monkeypatch, ranges):
    monkeypatch.setattr(download, "_BLOCK", 100)
    web.break_off = 1000
    with pytest.raises(MissingDataError, match="low.wav"):
        fetch.path("tones", "tones/low.wav")
    web.break_off, web.ranges = None, ranges
    file = fetch.path("tones", "tones/low.wav")
    assert file.read_bytes() == FILES["tones/low.wav"]
    assert web.requests == [("tones/low.wav", ""), ("tones/low.wav", "bytes=1000-")]
    assert files_in(cache_dir("data", "tones")) == ["tones/low.wav"]


def test_a_download_killed_at_its_end_is_taken_as_it_is(web):
    partial_file = cache_dir("data", "tones", "tones", ".low.wav.part")
    partial_file.parent.mkdir(parents=True)
    partial_file.write_bytes(FILES["tones/low.wav"])
    assert fetch.path("tones", "tones/low.wav").read_bytes() == FILES["tones/low.wav"]
    assert web.requests == []


def test_a_partial_file_longer_than_the_file_is_started_over(web):
    partial_file = cache_dir("data", "extra", ".low.wav.part")
    partial_file.parent.mkdir(parents=True)
    partial_file.write_bytes(FILES["tones/low.wav"] + b"more")
    file = fetch.fetch_url("extra", "low.wav", f"{web.url}/tones/low.wav")
    assert file.read_bytes() == FILES["tones/low.wav"]


def test_two_that_want_one_file_at_once(web):
    web.pause = 0.2
    found = []
    both = [
        threading.Thread(target=lambda: found.append(fetch.path("tones", "tones/low.wav")))
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [file.read_bytes() for file in found] == [FILES["tones/low.wav"]] * 2
    assert names_requested(web) == ["tones/low.wav"]


def test_no_network_says_which_file_from_where_how_large_and_where_to_put_it(web):
    web.shutdown()
    web.server_close()
    url = f"{web.url}/tones/low.wav"
    target = cache_dir("data", "tones", "tones", "low.wav")
    with pytest.raises(MissingDataError) as caught:
        fetch.path("tones", "tones/low.wav")
    assert str(caught.value) == (
        f"low.wav (0.0 MB) could not be fetched from {url}: ConnectionError. Put the file at "
        f"{target}, or in the folder BRAINBOOK_DATA under the same name, and run again."
    )


def test_a_file_that_the_server_lacks(web):
    del web.files["tones/low.wav"]
    with pytest.raises(MissingDataError, match=r"low.wav .* could not be fetched .*: HTTPError"):
        fetch.path("tones", "tones/low.wav")


def test_a_file_without_an_address_has_to_be_put_there():
    message = (
        r"net.pt \(90.0 MB\) has no direct download. It is part of what https://drive.example/x "
        r"offers. Put the file at .*models/net/net.pt"
    )
    with pytest.raises(MissingDataError, match=message):
        fetch.fetch_checkpoint("net", "net.pt", "https://drive.example/x", "", "", 90.0)


@pytest.mark.parametrize(
    "source, revision, expected",
    [
        ("https://huggingface.co/a/net", "", "https://huggingface.co/a/net/resolve/main/net.pt"),
        ("https://huggingface.co/a/net", "1ab", "https://huggingface.co/a/net/resolve/1ab/net.pt"),
        ("https://zenodo.org/3/net.pt", "", "https://zenodo.org/3/net.pt"),
    ],
)
def test_where_a_checkpoint_comes_from(monkeypatch, source, revision, expected):
    def download(url, target, sha256, n_bytes, source):
        assert (url, sha256, n_bytes) == (expected, "0" * 64, 1_500_000)
        raise MissingDataError("asked for the right file")

    monkeypatch.setattr(fetch, "download", download)
    with pytest.raises(MissingDataError, match="asked for the right file"):
        fetch.fetch_checkpoint("net", "net.pt", source, revision, "0" * 64, 1.5)


def test_a_cache_that_cannot_be_written(web, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BRAINBOOK_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="cannot write to .*choose another folder with"):
        fetch.path("tones", "a b.csv")


def test_a_full_disk_during_a_download(web, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download._ResumingDownloader, "_append", full)
    with pytest.raises(StorageError, match="the disk is full: .*low.wav could not be written"):
        fetch.path("tones", "tones/low.wav")


def test_an_unpinned_file_has_its_checksum_recorded_and_is_held_to_it(web):
    url = f"{web.url}/tones/low.wav"
    file = fetch.fetch_url("extra", "low.wav", url)
    recorded = json.loads(cache_dir("data", "recorded_sha256.json").read_text())
    assert recorded == {"extra/low.wav": hashlib.sha256(FILES["tones/low.wav"]).hexdigest()}
    assert fetch.fetch_url("extra", "low.wav", url) == file
    file.write_bytes(b"something else")
    assert fetch.fetch_url("extra", "low.wav", url).read_bytes() == FILES["tones/low.wav"]
    aside = file.with_name("low.wav.mismatch")
    assert aside.read_bytes() == b"something else"
    file.write_bytes(b"again something else")
    web.files["tones/low.wav"] = b"changed at the source"
    with pytest.raises(ChecksumError, match=r"another low.wav than before.*recorded when it first"):
        fetch.fetch_url("extra", "low.wav", url)
    assert not file.exists() and aside.read_bytes() == b"changed at the source"


def test_a_wrong_file_put_by_hand_is_set_aside():
    right = hashlib.sha256(b"right").hexdigest()
    file = cache_dir("data", "extra", "net.pt")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"wrong")
    with pytest.raises(ChecksumError, match=r"registered .* set aside as net.pt.mismatch"):
        fetch.fetch_url("extra", "net.pt", "", right)
    assert not file.exists()
    file.write_bytes(b"right")
    assert fetch.fetch_url("extra", "net.pt", "", right) == file


@pytest.fixture
def hub(web, monkeypatch):
    """A repository whose files lie in folders."""
    monkeypatch.setattr(fetch, "_HUB", web.url)

    def offer(*paths):
        listing = [{"type": "directory", "path": "models"}]
        listing += [{"type": "file", "path": path} for path in paths]
        body = json.dumps(listing).encode()
        web.files["api/models/a/nets/tree/main?recursive=true"] = body
        web.files |= {f"a/nets/resolve/main/{path}": path.encode() for path in paths}
        return f"{web.url}/a/nets"

    return offer


def fetched(source):
    return fetch.fetch_checkpoint("net", "net.pt", source, "", "", 0)


def test_a_checkpoint_is_found_in_a_folder_of_its_repository(hub, web):
    source = hub("models/large/net.pt", "models/other-net.pt")
    file = fetched(source)
    assert file == cache_dir("data", "models/net", "net.pt")
    assert file.read_bytes() == b"models/large/net.pt"
    n_requests = len(web.requests)
    assert fetched(source) == file and len(web.requests) == n_requests


def test_a_checkpoint_at_the_root_needs_no_list(hub, web):
    assert fetched(hub("net.pt", "old/net.pt")).read_bytes() == b"net.pt"
    assert not any(name.startswith("api/") for name, _ in web.requests)


@pytest.mark.parametrize(
    "paths, message",
    [
        (["other.pt"], r"not at .*/resolve/main/net.pt, and of the other folders .* in none. Put"),
        (["a/net.pt", "b/net.pt"], r"in several: a/net.pt, b/net.pt. Put the file at"),
    ],
)
def test_a_checkpoint_that_cannot_be_told_says_where_it_was_looked_for(hub, paths, message):
    with pytest.raises(MissingDataError, match=message):
        fetched(hub(*paths))


def test_a_repository_that_cannot_be_listed(web, monkeypatch, caplog):
    monkeypatch.setattr(fetch, "_HUB", web.url)
    with pytest.raises(MissingDataError, match="in none. Put the file at"):
        fetched(f"{web.url}/a/nets")
    assert "could not be listed" in caplog.text


def test_a_pinned_file_in_the_mirror_is_checked(web, mirror):
    url, right = f"{web.url}/tones/low.wav", hashlib.sha256(FILES["tones/low.wav"]).hexdigest()
    assert fetch.fetch_url("tones/tones", "low.wav", url, right) == mirror / "tones" / "low.wav"
    with pytest.raises(
        ChecksumError, match=r"differs from the checksum registered \(000000000000…"
    ):
        fetch.fetch_url("tones/tones", "low.wav", url, "0" * 64)
    assert web.requests == []


def test_unknown_data_set_and_file():
    with pytest.raises(UnknownNameError, match="unknown data set 'tone'. Did you mean 'tones'?"):
        fetch.fetch("tone")
    with pytest.raises(UnknownNameError, match="file of data set tones 'a.csv'.*'a b.csv'"):
        fetch.path("tones", "a.csv")


def test_a_file_name_with_wildcards_means_itself():
    with pytest.raises(UnknownNameError):
        fetch.path("tones", "*")


REGISTRIES = sorted((Path(fetch.__file__).parent / "registry").glob("*.csv"))


@pytest.mark.parametrize("file", REGISTRIES, ids=lambda file: file.stem)
def test_registries_are_consistent(file, monkeypatch):
    monkeypatch.setattr(fetch, "_REGISTRIES", file.parent)
    registry = fetch.registry(file.stem)
    entries = registry.entries
    assert registry.licence != "unknown" and registry.citation
    assert len({entry.file for entry in entries}) == len(entries)
    assert len({entry.url for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.n_bytes > 0 and len(entry.sha256) == 64 and int(entry.sha256, 16)
        assert entry.url.startswith("https://raw.githubusercontent.com/") and " " not in entry.url
        assert not Path(entry.file).is_absolute() and ".." not in Path(entry.file).parts


def test_registry_of_the_natural_sounds(monkeypatch):
    monkeypatch.setattr(fetch, "_REGISTRIES", REGISTRIES[0].parent)
    registry = fetch.registry("natsound165")
    assert len(registry.matching("wav/*.wav")) == 165
    assert len(registry.entries) == 165 + 14
    assert len(registry.matching("component-weight-significances/group/?h.comp?.mgz")) == 12
    commit = "b41b99ff620d7997dbf278fc770f58566707726a"
    repository = f"snormanhaignere/natsound165-neuron2015/{commit}/"
    assert all(repository in entry.url for entry in registry.entries)

"""Weight files: downloads from a local server, checks, and where files are looked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
import errno
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import logging
from pathlib import Path
import subprocess
import sys
from threading import Thread
from typing import Any
import zipfile

from masa_ros.models import weights
from masa_ros.models.weights import FILES, WeightsFile
import pytest

CONTENT = bytes(range(256)) * 40_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Site:
    """What the local server does, and what it was asked."""

    url: str = ''
    content: bytes = CONTENT
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    content_type: str = 'binary/octet-stream'
    promised: str = ''
    wrong_place: bool = False
    asked: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self) -> None:
        site: Site = self.server.site  # type: ignore[attr-defined]
        wanted = self.headers.get('Range', '')
        site.asked.append(wanted)
        if self.path == '/moved':
            self.send_response(302)
            self.send_header('Location', '/file')
            self.send_header('X-Linked-Etag', f'"{site.promised}"')
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        status = site.statuses.pop(0) if site.statuses else 200
        start = int(wanted[6:-1]) if wanted and site.ranges else 0
        if status == 200 and start >= len(site.content) > 0 and start:
            status = 416
        if status != 200:
            self.send_error(status)
            return
        body = site.content[start:]
        self.send_response(206 if start else 200)
        if start:
            place = start - 7 if site.wrong_place else start
            self.send_header('Content-Range', f'bytes {place}-{len(site.content) - 1}/*')
        self.send_header('Content-Type', site.content_type)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if site.cut_after:
            body = body[:site.cut_after.pop(0)]
            self.close_connection = True
        with suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    server = ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
    site = Site(url=f'http://127.0.0.1:{server.server_port}')
    server.site = site  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / 'weights'
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(folder))
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def entry(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> WeightsFile:
    """Return a known file that the local server has."""
    entry = WeightsFile('thing', 'thing.pth', f'{site.url}/file', 'Apache-2.0', len(CONTENT),
                        SHA256)
    monkeypatch.setitem(FILES, 'thing', entry)
    return entry


def fetch(entry: WeightsFile) -> Path:
    return weights.fetch(entry, wait_s=0.01, timeout_s=5)


def test_a_file_is_fetched_checked_and_named(entry: WeightsFile, cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = weights.fetch(entry, lambda done, total: seen.append((done, total)))
    assert path == cache / 'thing.pth'
    assert path.read_bytes() == CONTENT
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert not list(cache.glob('*.part'))


def test_a_file_that_is_here_is_not_asked_for_again(entry: WeightsFile, site: Site) -> None:
    fetch(entry)
    fetch(entry)
    assert site.asked == ['']


def test_an_interrupted_download_is_continued_by_the_next_one(
    entry: WeightsFile, site: Site, cache: Path,
) -> None:
    cache.mkdir()
    (cache / 'thing.pth.part').write_bytes(CONTENT[:12345])
    assert fetch(entry).read_bytes() == CONTENT
    assert site.asked == ['bytes=12345-']


def test_a_cut_transfer_is_continued_at_once(entry: WeightsFile, site: Site) -> None:
    site.cut_after = [1_000_000, 2_000_000]
    assert fetch(entry).read_bytes() == CONTENT
    assert site.asked == ['', 'bytes=1000000-', 'bytes=3000000-']


def test_progress_between_cuts_keeps_the_download_going(entry: WeightsFile, site: Site) -> None:
    site.cut_after = [1_000_000] * 8
    assert fetch(entry).read_bytes() == CONTENT
    assert len(site.asked) == 9


def test_no_progress_ends_after_five_tries_and_keeps_the_part(
    entry: WeightsFile, site: Site, cache: Path,
) -> None:
    site.cut_after = [500, *[0] * 20]
    with pytest.raises(OSError, match='continues where it stopped') as caught:
        fetch(entry)
    assert entry.url in str(caught.value)
    assert str(cache / 'thing.pth') in str(caught.value)
    assert (cache / 'thing.pth.part').stat().st_size == 500
    assert not (cache / 'thing.pth').exists()


def test_a_server_that_ignores_ranges_sends_the_whole_file(
    entry: WeightsFile, site: Site, cache: Path,
) -> None:
    cache.mkdir()
    (cache / 'thing.pth.part').write_bytes(b'x' * 5000)
    site.ranges = False
    assert fetch(entry).read_bytes() == CONTENT


def test_a_server_that_continues_elsewhere_is_not_believed(
    entry: WeightsFile, site: Site, cache: Path,
) -> None:
    cache.mkdir()
    (cache / 'thing.pth.part').write_bytes(CONTENT[:5000])
    site.wrong_place = True
    assert fetch(entry).read_bytes() == CONTENT
    assert site.asked == ['bytes=5000-', '']


def test_a_part_that_is_too_long_is_thrown_away(
    entry: WeightsFile, site: Site, cache: Path,
) -> None:
    cache.mkdir()
    (cache / 'thing.pth.part').write_bytes(CONTENT + b'more')
    assert fetch(entry).read_bytes() == CONTENT


@pytest.mark.parametrize('extra', [b'', b'more'])
def test_a_full_part_of_unknown_size_is_fetched_anew(
    entry: WeightsFile, site: Site, cache: Path, extra: bytes,
) -> None:
    cache.mkdir()
    (cache / 'thing.pth.part').write_bytes(CONTENT + extra)
    assert fetch(replace(entry, size_bytes=0)).read_bytes() == CONTENT


def test_a_finished_part_only_gets_its_name(
    entry: WeightsFile, site: Site, cache: Path,
) -> None:
    cache.mkdir()
    (cache / 'thing.pth.part').write_bytes(CONTENT)
    assert fetch(entry).read_bytes() == CONTENT
    assert site.asked == []


@pytest.mark.parametrize('known', ['sha256', 'md5'])
def test_wrong_contents_are_refused_and_removed(
    entry: WeightsFile, site: Site, cache: Path, known: str,
) -> None:
    site.content = CONTENT[::-1]
    if known == 'md5':
        entry = replace(entry, sha256='', md5=MD5)
    with pytest.raises(ValueError, match=f'has {known} [0-9a-f]+, but thing.pth has'):
        fetch(entry)
    assert not list(cache.glob('thing.pth*part'))
    assert not (cache / 'thing.pth').exists()


def test_another_size_is_noticed_before_the_download(entry: WeightsFile, site: Site) -> None:
    site.content = CONTENT + b'!'
    with pytest.raises(ValueError, match='gives another file now'):
        fetch(entry)


def test_a_web_page_is_not_taken_for_weights(
    entry: WeightsFile, site: Site, cache: Path,
) -> None:
    site.content_type = 'text/html; charset=utf-8'
    with pytest.raises(ValueError, match='a web page instead of the file'):
        fetch(entry)
    assert not list(cache.glob('*.pth*t'))


def test_a_missing_file_names_the_address_and_the_place(
    entry: WeightsFile, site: Site, cache: Path,
) -> None:
    site.statuses = [404]
    with pytest.raises(OSError, match='404') as caught:
        fetch(entry)
    assert entry.url in str(caught.value)
    assert str(cache / 'thing.pth') in str(caught.value)
    assert len(site.asked) == 1


def test_a_busy_server_is_asked_again(entry: WeightsFile, site: Site) -> None:
    site.statuses = [503, 429]
    assert fetch(entry).read_bytes() == CONTENT


def test_without_a_network_the_error_says_what_to_do(
    entry: WeightsFile, site: Site, cache: Path,
) -> None:
    # Nothing listens on port 9 of this machine; a missing host name fails in the same way.
    with pytest.raises(OSError, match='could not be downloaded') as caught:
        fetch(replace(entry, url='http://127.0.0.1:9/file'))
    assert f'put it at {cache / "thing.pth"}' in str(caught.value)


def test_a_full_disk_is_noticed_before_the_download(
    entry: WeightsFile, site: Site, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr('shutil.disk_usage', lambda path: Usage(1000))
    with pytest.raises(OSError, match='free some 10 MB or set MASA_ROS_WEIGHTS') as caught:
        fetch(entry)
    assert caught.value.errno == errno.ENOSPC
    assert site.asked == []


@dataclass
class Usage:
    """Free bytes of a disk."""

    free: int


def test_a_disk_that_fills_up_keeps_the_part(
    entry: WeightsFile, site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    cache.mkdir()
    (cache / 'thing.pth.part').write_bytes(CONTENT[:700])
    monkeypatch.setattr(weights, '_copy', full)
    with pytest.raises(OSError, match='it continues where it stopped'):
        fetch(entry)
    assert (cache / 'thing.pth.part').stat().st_size == 700


def test_a_folder_that_cannot_be_written_is_named(
    entry: WeightsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(tmp_path / 'file'))
    with pytest.raises(OSError, match='cannot be written; set MASA_ROS_WEIGHTS'):
        fetch(entry)


def test_the_sum_that_hugging_face_promises_is_used(
    entry: WeightsFile, site: Site, cache: Path,
) -> None:
    unknown = replace(entry, url=f'{site.url}/moved', size_bytes=0, sha256='')
    site.promised = hashlib.sha256(b'something else').hexdigest()
    with pytest.raises(ValueError, match='has sha256'):
        fetch(unknown)
    site.promised = SHA256
    assert fetch(unknown).read_bytes() == CONTENT


def test_two_processes_download_once(entry: WeightsFile, site: Site, cache: Path) -> None:
    code = ('import sys; from masa_ros.models import weights; '
            'weights.fetch(weights.WeightsFile("thing", "thing.pth", sys.argv[1], "", '
            f'{len(CONTENT)}, "{SHA256}"), timeout_s=5)')
    processes = [subprocess.Popen([sys.executable, '-c', code, entry.url]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(site.asked) == 1
    assert (cache / 'thing.pth').read_bytes() == CONTENT


def test_waiting_for_another_process_is_said(
    entry: WeightsFile, cache: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    import fcntl
    cache.mkdir()
    with (cache / 'thing.pth.lock').open('w') as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        thread = Thread(target=fetch, args=(entry,))
        with caplog.at_level(logging.WARNING):
            thread.start()
            thread.join(0.5)
            assert thread.is_alive()
            assert 'another process downloads thing.pth' in caplog.text
            fcntl.flock(holder, fcntl.LOCK_UN)
            thread.join(30)
    assert (cache / 'thing.pth').read_bytes() == CONTENT


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('MASA_ROS_WEIGHTS', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', '/somewhere')
    assert weights.folder() == Path('/somewhere/masa_ros')
    monkeypatch.setenv('MASA_ROS_WEIGHTS', '~/mine')
    assert weights.folder() == Path.home() / 'mine'
    monkeypatch.delenv('MASA_ROS_WEIGHTS')
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert weights.folder() == Path.home() / '.cache' / 'masa_ros'


def test_missing_weights_say_how_to_get_them(cache: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        weights.find('sam_vit_b')
    text = str(caught.value)
    assert 'masa_ros weights fetch sam_vit_b' in text
    assert 'https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth' in text
    assert str(cache / 'sam_vit_b_01ec64.pth') in text


def test_a_given_file_wins_and_is_named_when_missing(cache: Path, tmp_path: Path) -> None:
    mine = tmp_path / 'mine.pth'
    mine.write_bytes(b'x')
    assert weights.find('sam_vit_b', mine) == mine
    with pytest.raises(FileNotFoundError, match=r'no weights at .*other\.pth; correct the path'):
        weights.find('sam_vit_b', tmp_path / 'other.pth')


def test_files_are_found_by_either_name(cache: Path) -> None:
    cache.mkdir()
    (cache / 'masa_r50.pth').write_bytes(b'x')
    assert weights.find('masa_r50') == weights.find('masa_r50.pth') == cache / 'masa_r50.pth'


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown weights 'sam_vit_x'; known ones are sam_vit_b"):
        weights.entry_of('sam_vit_x')


def test_the_published_facts_are_consistent() -> None:
    for entry in FILES.values():
        assert entry.url.endswith('/' + entry.file)
        assert entry.url.startswith('https://')
        assert len(entry.sha256) in (0, 64)
        assert len(entry.md5) in (0, 32)
    for variant in ('sam_vit_b', 'sam_vit_l', 'sam_vit_h', 'mobile_sam'):
        assert FILES[variant].sha256
        assert FILES[variant].size_bytes


def test_weights_info_tells_published_from_unknown(
    entry: WeightsFile, cache: Path, tmp_path: Path,
) -> None:
    stranger = tmp_path / 'stranger.pth'
    stranger.write_bytes(b'unknown')
    info = weights.info([fetch(entry)])
    assert info.trained is True
    assert info.sha256 == SHA256
    assert info.summary() == f'thing.pth (sha256 {SHA256[:10]}, trained)'
    assert weights.info([stranger]).trained is None
    assert 'training unknown' in weights.info([stranger]).summary()
    both = weights.info([fetch(entry), stranger])
    assert both.trained is None
    assert both.files == ('thing.pth', 'stranger.pth')
    assert len(both.sha256) == 64


def test_a_published_file_is_known_wherever_it_lies(entry: WeightsFile, tmp_path: Path) -> None:
    copied = tmp_path / 'renamed.bin'
    copied.write_bytes(CONTENT)
    assert weights.info([copied]).trained is True


def test_what_was_downloaded_from_the_publisher_is_trained(
    entry: WeightsFile, monkeypatch: pytest.MonkeyPatch,
) -> None:
    unknown = replace(entry, sha256='')
    monkeypatch.setitem(FILES, 'thing', unknown)
    path = fetch(unknown)
    assert weights.info([path]).trained is True
    assert weights.check(unknown, path) == 'as downloaded'
    path.write_bytes(CONTENT[::-1])
    assert weights.info([path]).trained is None


def test_damage_after_the_download_is_found(
    entry: WeightsFile, monkeypatch: pytest.MonkeyPatch,
) -> None:
    unknown = replace(entry, sha256='')
    monkeypatch.setitem(FILES, 'thing', unknown)
    path = fetch(unknown)
    path.write_bytes(CONTENT[:-1] + b'!')
    with pytest.raises(ValueError, match='not what was downloaded'):
        weights.check(unknown, path)


def test_seeded_weights_say_that_they_are_not_trained(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / 'seeded.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('seeded/data.pkl', b'')
        archive.writestr('seeded/masa_ros_seeded.json', b'{}')
    assert weights.is_seeded(path)
    info = weights.info([path])
    assert info.trained is False
    assert 'NOT TRAINED' in info.summary()


def test_a_digest_is_remembered_until_the_file_changes(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / 'file'
    path.write_bytes(b'one')
    first = weights.digest_of(path)
    monkeypatch.setattr(weights, '_read', lambda path: pytest.fail('read again'))
    assert weights.digest_of(path) == first
    monkeypatch.undo()
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(cache))
    path.write_bytes(b'another')
    assert weights.digest_of(path).sha256 == hashlib.sha256(b'another').hexdigest()


@pytest.mark.parametrize('content', ['', '[]', '{"x": 1}', '{"x": {"size": 1}}', 'not json'])
def test_a_damaged_memory_of_digests_is_ignored(
    cache: Path, tmp_path: Path, content: str,
) -> None:
    cache.mkdir()
    (cache / 'digests.json').write_text(content)
    path = tmp_path / 'file'
    path.write_bytes(b'one')
    assert weights.digest_of(path).sha256 == hashlib.sha256(b'one').hexdigest()
    assert str(path) in json.loads((cache / 'digests.json').read_text())


def test_a_folder_that_cannot_be_written_does_not_stop_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / 'taken').write_text('')
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(tmp_path / 'taken'))
    path = tmp_path / 'file'
    path.write_bytes(b'one')
    assert weights.info([path]).sha256 == hashlib.sha256(b'one').hexdigest()


def test_nothing_is_downloaded_and_no_torch_is_needed_to_look(cache: Path) -> None:
    code = ('import sys; from masa_ros.models import weights\n'
            'try: weights.find("sam_vit_b")\n'
            'except FileNotFoundError: pass\n'
            'assert "torch" not in sys.modules')
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
    assert not cache.exists()

"""
Public weight files: where they come from, where they lie, and whether they are what they claim.

Nothing here runs at launch except `find`, which looks for a file and says how to get it. The
folder is ``$MASA_ROS_WEIGHTS``, else ``$XDG_CACHE_HOME/masa_ros``, else ``~/.cache/masa_ros``.
No torch is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.message import Message
import errno
import fcntl
import hashlib
import http.client
import json
import logging
import os
from pathlib import Path
import re
import shutil
import tempfile
import time
from typing import Any, BinaryIO
import urllib.error
import urllib.request
import zipfile

from masa_ros.models.model import WeightsInfo

SEEDED_RECORD = 'masa_ros_seeded.json'
"""Member of a weights file (a zip archive) that marks its numbers as random; see seeding.py."""

_LOG = logging.getLogger(__name__)
_BLOCK = 1 << 20
# Smaller files are read again each time instead of being remembered.
_QUICKLY_READ = 1 << 24
_ATTEMPTS = 5


@dataclass(frozen=True)
class WeightsFile:
    """
    A file that somebody publishes.

    Parameters
    ----------
    name : str
        What `find` and ``masa_ros weights`` call it: the name of the model that needs it, or
        what it is.
    file : str
        File name, as published.
    url : str
        Where it is.
    licence : str
        Licence of the weights.
    size_bytes : int
        Exact size; 0 where it is not public.
    sha256, md5 : str
        Hex digests where they are public, else empty.

    """

    name: str
    file: str
    url: str
    licence: str
    size_bytes: int = 0
    sha256: str = ''
    md5: str = ''


_SAM = 'https://dl.fbaipublicfiles.com/segment_anything/'
_MASA = 'https://huggingface.co/dereksiyuanli/masa/resolve/main/'
_APACHE = 'Apache-2.0'
_UNSTATED = 'not stated (code: Apache-2.0)'

# The official SAM names carry the first digits of the MD5, not of the SHA-256. Digests and sizes
# were compared in independent public places; those of the MASA files come from one place each.
FILES: dict[str, WeightsFile] = {entry.name: entry for entry in (
    WeightsFile(
        'sam_vit_b', 'sam_vit_b_01ec64.pth', _SAM + 'sam_vit_b_01ec64.pth', _APACHE, 375042383,
        'ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912'),
    WeightsFile(
        'sam_vit_l', 'sam_vit_l_0b3195.pth', _SAM + 'sam_vit_l_0b3195.pth', _APACHE, 1249524607,
        '3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622'),
    WeightsFile(
        'sam_vit_h', 'sam_vit_h_4b8939.pth', _SAM + 'sam_vit_h_4b8939.pth', _APACHE, 2564550879,
        'a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e'),
    WeightsFile(
        'mobile_sam', 'mobile_sam.pt',
        'https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt', _APACHE,
        40728226, '6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f'),
    WeightsFile('masa_r50', 'masa_r50.pth', _MASA + 'masa_r50.pth', _UNSTATED,
                md5='1b67de86a3cb8cab35c4797bcb8ea95f'),
    WeightsFile('masa_sam_vit_b', 'sam_vitb_masa.pth', _MASA + 'sam_vitb_masa.pth', _UNSTATED,
                558882875, '441c05bf9519632fead1afd5200bb6a4f13b4a41c58f4428024490b4c2bd777c'),
    WeightsFile('masa_sam_vit_h', 'sam_vith_masa.pth', _MASA + 'sam_vith_masa.pth', _UNSTATED),
    WeightsFile('masa_gdino', 'gdino_masa.pth', _MASA + 'gdino_masa.pth', _UNSTATED,
                md5='4b703764ce82b6a133b47fb5aef2e4e2'),
    WeightsFile('masa_detic', 'detic_masa.pth', _MASA + 'detic_masa.pth', _UNSTATED),
    # No weights, but text prompts for Grounding-DINO are not read without it.
    WeightsFile(
        'bert_vocabulary', 'vocab.txt',
        'https://huggingface.co/google-bert/bert-base-uncased/resolve/main/vocab.txt', _APACHE,
        231508, '07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3',
        '64800d5d8528ce344256daf115d4965e'),
)}
"""Every file that `masa_ros weights` knows, by name."""


def folder() -> Path:
    """Return the folder of weight files; it need not exist."""
    chosen = os.environ.get('MASA_ROS_WEIGHTS')
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get('XDG_CACHE_HOME')
    return (Path(cache) if cache else Path.home() / '.cache') / 'masa_ros'


def entry_of(name: str) -> WeightsFile:
    """
    Find a public file by its name or file name.

    Raises
    ------
    ValueError
        If it is not known.

    """
    for entry in FILES.values():
        if name in (entry.name, entry.file):
            return entry
    raise ValueError(f'unknown weights {name!r}; known ones are ' + ', '.join(FILES))


def find(name: str, given: str | Path = '') -> Path:
    """
    Find the weights of a model on this machine; nothing is downloaded.

    Parameters
    ----------
    name : str
        Name or file name of a public file.
    given : str or Path
        The user's own choice of a file; empty looks in `folder`.

    Raises
    ------
    FileNotFoundError
        If the file is not there; the message says where it can be had and where to put it.

    """
    path = Path(given).expanduser() if str(given) else folder() / entry_of(name).file
    if path.is_file():
        return path
    raise FileNotFoundError(
        f'no weights at {path}; ' + how_to_get(entry_of(name), chosen=bool(str(given))))


def how_to_get(entry: WeightsFile, chosen: bool = False) -> str:
    """Say how to get a file, for error messages."""
    mend = 'correct the path, or leave it empty and ' if chosen else ''
    return f'{mend}run masa_ros weights fetch {entry.name}, or {_by_hand(entry)}'


def _by_hand(entry: WeightsFile) -> str:
    size = f', {readable_size(entry.size_bytes)}' if entry.size_bytes else ''
    return (f'download {entry.url} (licence {entry.licence}{size}) on a machine with a network '
            f'and put it at {folder() / entry.file} (MASA_ROS_WEIGHTS names another folder)')


def is_seeded(path: str | Path) -> bool:
    """Tell whether a file carries our mark of random weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith('/' + SEEDED_RECORD) for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def info(files: Sequence[str | Path]) -> WeightsInfo:
    """
    Say which weights some files hold.

    Parameters
    ----------
    files : sequence of str or Path
        Existing files.

    Returns
    -------
    WeightsInfo
        ``trained`` is ``True`` when every file is a published one (known digest, or downloaded
        by `fetch`), ``False`` when any is marked as seeded, and ``None``, not known, otherwise.
        ``sha256`` is the file's digest; for several files it is the digest over theirs.

    """
    paths = [Path(file) for file in files]
    digests = [digest_of(path) for path in paths]
    joined = digests[0].sha256 if len(digests) == 1 else hashlib.sha256(
        ' '.join(digest.sha256 for digest in digests).encode()).hexdigest()
    trained: bool | None = None
    if any(is_seeded(path) for path in paths):
        trained = False
    elif all(digest.published for digest in digests):
        trained = True
    return WeightsInfo(tuple(path.name for path in paths), joined, trained)


@dataclass(frozen=True)
class Digest:
    """
    Digests of a file's contents.

    Parameters
    ----------
    sha256, md5 : str
        Hex.
    source : str
        Address that `fetch` got it from; empty for a file that was put there by hand.

    """

    sha256: str
    md5: str
    source: str = ''

    @property
    def published(self) -> bool:
        """Whether the contents are known to be a public file's."""
        return bool(self.source) or any(
            self.sha256 == entry.sha256 or self.md5 == entry.md5 for entry in FILES.values())


def digest_of(path: str | Path) -> Digest:
    """Digest a file; remembered in the weights folder until its size or time changes."""
    path = Path(path).resolve()
    known = _remembered().get(str(path), {})
    if known and all(known[name] == value for name, value in _state(path).items()):
        return Digest(known['sha256'], known['md5'], known['source'])
    digest = _read(path)
    _remember(path, digest)
    return digest


def digest_of_contents(paths: Iterable[str | Path]) -> str:
    """
    Digest over the contents of files and of all files in folders, in their order.

    Where a file lies and what it is called is not part of it; what is missing has no contents.
    Empty where there is nothing.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        files += sorted(path.rglob('*')) if path.is_dir() else [path]
    digests = [_read(file).sha256 if file.stat().st_size < _QUICKLY_READ
               else digest_of(file).sha256 for file in files if file.is_file()]
    return hashlib.sha256(' '.join(digests).encode()).hexdigest() if digests else ''


def _read(path: Path) -> Digest:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open('rb') as file:
        while block := file.read(4 * _BLOCK):
            sha256.update(block)
            md5.update(block)
    return Digest(sha256.hexdigest(), md5.hexdigest())


def _state(path: Path) -> dict[str, int]:
    state = path.stat()
    return {'size': state.st_size, 'mtime_ns': state.st_mtime_ns}


def _memory() -> Path:
    return folder() / 'digests.json'


def _remembered() -> dict[str, Any]:
    """Digests by path; a damaged or foreign file counts as none."""
    try:
        content = json.loads(_memory().read_text())
    except (OSError, ValueError):
        return {}
    fields = {'size', 'mtime_ns', 'sha256', 'md5', 'source'}
    if not isinstance(content, dict):
        return {}
    return {path: entry for path, entry in content.items()
            if isinstance(entry, dict) and fields <= entry.keys()}


def _remember(path: Path, digest: Digest) -> None:
    """Keep a digest for the next start; without a writable folder it is computed again."""
    memory = {name: entry for name, entry in _remembered().items() if Path(name).exists()}
    memory[str(path)] = {**_state(path), 'sha256': digest.sha256, 'md5': digest.md5,
                         'source': digest.source}
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
                'w', dir=folder(), suffix='.json', delete=False) as file:
            json.dump(memory, file, indent=1)
        os.replace(file.name, _memory())
    except OSError:
        return


def check(entry: WeightsFile, path: str | Path) -> str:
    """
    Read a file and compare it with what is published, or with what was downloaded.

    Returns
    -------
    str
        ``verified``; ``as downloaded`` where no digest is published but `fetch` noted one;
        ``unverified`` where there is nothing to compare with.

    Raises
    ------
    ValueError
        If the file differs; the message says in what.

    """
    path = Path(path).resolve()
    known = _remembered().get(str(path), {})
    digest = _compare(entry, path)
    source = known.get('source', '')
    if source and not (entry.sha256 or entry.md5) and known['sha256'] != digest.sha256:
        raise ValueError(f'{path} is not what was downloaded from {source} any more; delete it '
                         'and fetch it again')
    if source and known['sha256'] == digest.sha256:
        digest = replace(digest, source=source)
    _remember(path, digest)
    if entry.sha256 or entry.md5:
        return 'verified'
    return 'as downloaded' if digest.source else 'unverified'


def _compare(entry: WeightsFile, path: Path) -> Digest:
    """Digest of a file that has the published size and digests; see `check`."""
    size = path.stat().st_size
    if entry.size_bytes and size != entry.size_bytes:
        raise ValueError(f'{path} has {size} bytes, but {entry.file} has {entry.size_bytes}; it '
                         'is cut off or another file: delete it and fetch it again')
    digest = _read(path)
    for kind, got, expected in (('sha256', digest.sha256, entry.sha256),
                                ('md5', digest.md5, entry.md5)):
        if expected and got != expected:
            raise ValueError(f'{path} has {kind} {got}, but {entry.file} has {expected}; it is '
                             'damaged or another file: delete it and fetch it again')
    return digest


Progress = Callable[[int, int], None]
"""Called with the bytes there and the bytes in all (0 where unknown)."""


def fetch(
    entry: WeightsFile,
    progress: Progress | None = None,
    wait_s: float = 1.0,
    timeout_s: float = 30.0,
) -> Path:
    """
    Download a file into the weights folder, or find it complete there.

    The download goes to a ``.part`` file, which an interrupted one leaves behind and the next one
    continues; only a checked file gets its final name. A second process waits for the first.

    Parameters
    ----------
    entry : WeightsFile
        What to get.
    progress : callable, optional
        Told about the bytes received.
    wait_s : float
        Pause after the first broken connection; it doubles each time, up to four times.
    timeout_s : float
        Silence after which a connection counts as broken.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OSError
        If the network, the server or the disk does not allow it; the message names the address,
        the file and what to do.
    ValueError
        If what came is not the published file.

    """
    target = folder() / entry.file
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target.with_name(target.name + '.lock')):
            if target.is_file():
                check(entry, target)
            else:
                _download(entry, target, progress or (lambda done, total: None), wait_s, timeout_s)
    except urllib.error.HTTPError as error:
        raise OSError(f'the server answered {error.code} {error.reason} for {entry.url}; the '
                      f'file may have moved: put it at {target} by hand') from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                errno.ENOSPC, f'no room for {entry.file} in {target.parent}: free some '
                f'{readable_size(_missing_bytes(entry, target))} or set MASA_ROS_WEIGHTS to '
                'another disk, then run the command again; it continues where it '
                'stopped') from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            raise OSError(error.errno, f'{target.parent} cannot be written; set MASA_ROS_WEIGHTS '
                          'to another folder') from error
        raise OSError(
            f'{entry.url} could not be downloaded ({_reason(error)}). Run the command again, it '
            f'continues where it stopped; without a network, {_by_hand(entry)}') from error
    return target


def _download(
    entry: WeightsFile, target: Path, progress: Progress, wait_s: float, timeout_s: float,
) -> None:
    """Fill the ``.part`` file, check it and give it its name."""
    part = target.with_name(target.name + '.part')
    free = shutil.disk_usage(target.parent).free
    if free < _missing_bytes(entry, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    failures, reached = 0, -1
    while True:
        try:
            promised = _receive(entry, part, progress, timeout_s)
            break
        except (OSError, http.client.HTTPException) as error:
            there = part.stat().st_size if part.exists() else 0
            failures = 1 if there > reached else failures + 1
            reached = max(there, reached)
            if failures == _ATTEMPTS or not _worth_another_try(error):
                raise _as_os_error(error) from error
            pause_s = wait_s * 2 ** (failures - 1)
            _LOG.warning('%s: %s; trying again in %g s', entry.file, _reason(error), pause_s)
            time.sleep(pause_s)
    expected = entry if entry.sha256 or entry.md5 else replace(entry, sha256=promised)
    try:
        digest = _compare(expected, part)
    except ValueError:
        # It would never get better by continuing.
        part.unlink()
        raise
    os.replace(part, target)
    _remember(target.resolve(), replace(digest, source=entry.url))


def _receive(entry: WeightsFile, part: Path, progress: Progress, timeout_s: float) -> str:
    """Append what is missing to the ``.part`` file; returns the SHA-256 that the host promises."""
    done = part.stat().st_size if part.exists() else 0
    if entry.size_bytes and done >= entry.size_bytes:
        if done > entry.size_bytes:
            part.unlink()
            return _receive(entry, part, progress, timeout_s)
        return ''
    headers = {'User-Agent': 'masa_ros', 'Accept-Encoding': 'identity'}
    if done:
        headers['Range'] = f'bytes={done}-'
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    try:
        answer = opener.open(urllib.request.Request(entry.url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            # The part is as long as the file, or longer; only the whole file can tell.
            part.unlink()
            return _receive(entry, part, progress, timeout_s)
        raise
    with answer:
        if answer.headers.get_content_type() == 'text/html':
            raise ValueError(f'{entry.url} answered with a web page instead of the file; a proxy '
                             'or a login may be in between')
        continued = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        if continued and not answer.headers.get('Content-Range', '').startswith(f'bytes {done}-'):
            part.unlink()
            raise ConnectionError('the server continued at another place')
        done = done if continued else 0
        total = done + int(answer.headers.get('Content-Length') or 0)
        if entry.size_bytes and total not in (done, entry.size_bytes):
            raise ValueError(f'{entry.url} has {total} bytes, but {entry.file} has '
                             f'{entry.size_bytes}; the address gives another file now')
        with part.open('ab' if continued else 'wb') as file:
            _copy(answer, file, done, total, progress)
        return _promised_sha256([*redirects.passed, answer.headers])


def _copy(answer: Any, file: BinaryIO, done: int, total: int, progress: Progress) -> None:
    """Copy an answer's body into a file."""
    progress(done, total)
    while block := answer.read(_BLOCK):
        file.write(block)
        done += len(block)
        progress(done, total)
    file.flush()
    os.fsync(file.fileno())
    if done < total:
        raise ConnectionError(f'the connection ended after {done} of {total} bytes')


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps their headers."""

    def __init__(self) -> None:
        self.passed: list[Message] = []

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str,
        headers: Any, newurl: str,
    ) -> urllib.request.Request | None:
        """Note the headers on the way."""
        self.passed.append(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _promised_sha256(answers: Sequence[Message]) -> str:
    """SHA-256 that Hugging Face gives for large files in this header, else an empty string."""
    for headers in answers:
        tag = str(headers.get('X-Linked-Etag', '')).strip('"')
        if re.fullmatch('[0-9a-f]{64}', tag):
            return tag
    return ''


def _worth_another_try(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= 500 or error.code == http.HTTPStatus.TOO_MANY_REQUESTS
    if isinstance(error, http.client.HTTPException | ConnectionError | TimeoutError):
        return True
    reason = getattr(error, 'reason', None)
    return isinstance(reason, ConnectionError | TimeoutError)


def _as_os_error(error: Exception) -> OSError:
    return error if isinstance(error, OSError) else ConnectionError(_reason(error))


def _reason(error: BaseException) -> str:
    return str(getattr(error, 'reason', '') or error) or type(error).__name__


def _missing_bytes(entry: WeightsFile, target: Path) -> int:
    """Bytes still to come; 0 where the size is unknown."""
    part = target.with_name(target.name + '.part')
    return max(entry.size_bytes - (part.stat().st_size if part.exists() else 0), 0)


def readable_size(size_bytes: int) -> str:
    """Size of a file for people."""
    if size_bytes < 1e6:
        return f'{size_bytes / 1e3:.0f} kB'
    return f'{size_bytes / 1e6:.0f} MB'


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold a lock file; another holder is waited for. The file stays, empty."""
    with path.open('a') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.warning('another process downloads %s; waiting for it', path.stem)
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

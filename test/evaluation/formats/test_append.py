"""Whole pieces or nothing."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys

from masa_ros.evaluation.formats.append import AppendFile
import pytest


def test_pieces_follow_each_other_and_are_there_at_once(tmp_path: Path) -> None:
    file = AppendFile(tmp_path / 'a')
    file.write('one\n')
    file.write('zw\u00f6lf\n')
    assert (tmp_path / 'a').read_text('utf-8') == 'one\nzw\u00f6lf\n'
    assert not file.closed
    file.close()
    assert file.closed


def test_a_piece_without_room_is_taken_away(tmp_path: Path) -> None:
    """A limit on the file size stands in for a full disk; it allows half of the third piece."""
    code = f"""
import pathlib, resource, signal, sys
from masa_ros.evaluation.formats.append import AppendFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (25000, 25000))
file = AppendFile(pathlib.Path({str(tmp_path / 'a')!r}))
for letter in 'abc':
    try:
        file.write(letter * 10000)
    except OSError:
        file.write('end')
        sys.exit(17)
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, '-c', code], cwd=root, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 17, done.stderr
    assert (tmp_path / 'a').read_text() == 'a' * 10000 + 'b' * 10000 + 'end'


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        AppendFile(tmp_path / 'no' / 'a')

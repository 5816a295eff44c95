"""``masa_ros weights`` as a user types it."""

from __future__ import annotations

from pathlib import Path

from masa_ros.cli.weights import main
from masa_ros.models import weights
from masa_ros.models.weights import FILES, WeightsFile
import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / 'weights'
    folder.mkdir()
    monkeypatch.setenv('MASA_ROS_WEIGHTS', str(folder))
    return folder


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> WeightsFile:
    """Return a small known file: its contents are 'one'."""
    entry = WeightsFile(
        'thing', 'thing.pth', 'http://127.0.0.1:9/thing.pth', 'not stated (code: MIT)', 3,
        '7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed')
    monkeypatch.setitem(FILES, 'thing', entry)
    return entry


def test_list_shows_every_file_and_what_is_here(
    entry: WeightsFile, cache: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    (cache / 'thing.pth').write_bytes(b'one')
    (cache / 'mobile_sam.pt').write_bytes(b'cut off')
    (cache / 'masa_r50.pth.part').write_bytes(bytes(2_000_000))
    assert main(['list']) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert str(cache) in lines['folder:']
    assert lines['thing'].split()[2:] == ['0', 'kB', 'here', 'not', 'stated', '(code:', 'MIT)']
    assert 'WRONG SIZE' in lines['mobile_sam']
    assert '2 MB fetched' in lines['masa_r50']
    assert set(FILES) <= lines.keys()


def test_verify_tells_right_from_wrong(
    entry: WeightsFile, cache: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    (cache / 'thing.pth').write_bytes(b'one')
    assert main(['verify']) == 0
    assert 'thing.pth: verified' in capsys.readouterr().out
    (cache / 'thing.pth').write_bytes(b'two')
    assert main(['verify']) == 1
    assert 'thing.pth: WRONG' in capsys.readouterr().out
    assert main(['verify', 'mobile_sam']) == 1
    assert 'mobile_sam.pt: not here' in capsys.readouterr().out


def test_verify_without_any_file_says_how_to_get_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(['verify']) == 0
    assert 'masa_ros weights fetch' in capsys.readouterr().out


def test_fetch_prints_the_path_and_names_an_unstated_licence(
    entry: WeightsFile, cache: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    (cache / 'thing.pth').write_bytes(b'one')
    assert main(['fetch', 'thing']) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(cache / 'thing.pth')
    assert 'licence of the weights not stated' in captured.err


def test_fetch_without_a_network_ends_with_the_address(
    entry: WeightsFile, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    assert main(['fetch', 'thing']) == 2
    assert entry.url in capsys.readouterr().err


def test_unknown_names_end_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['fetch', 'sam_vit_x']) == 2
    assert 'known ones are sam_vit_b' in capsys.readouterr().err


def test_seed_makes_a_marked_file_and_does_not_replace_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / 'mobile.pt'
    assert main(['seed', 'mobile_sam', str(path)]) == 0
    assert 'NOT TRAINED' in capsys.readouterr().out
    assert weights.is_seeded(path)
    assert main(['seed', 'mobile_sam', str(path)]) == 2
    assert '--force' in capsys.readouterr().err
    assert main(['seed', 'mobile_sam', str(tmp_path / 'no' / 'x.pt')]) == 2
    assert main(['seed', 'classical', str(tmp_path / 'x.pt')]) == 2
    assert 'no weights can be made' in capsys.readouterr().err


def test_a_seeded_file_under_an_official_name_is_not_passed_off(
    cache: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(['seed', 'mobile_sam', str(cache / 'mobile_sam.pt')]) == 0
    capsys.readouterr()
    assert main(['list']) == 0
    assert 'here, NOT TRAINED' in capsys.readouterr().out
    assert main(['verify', 'mobile_sam']) == 1
    assert 'mobile_sam.pt: random weights, NOT TRAINED' in capsys.readouterr().out

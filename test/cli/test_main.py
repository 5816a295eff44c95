"""The command line as a whole."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from masa_ros.cli import main as command_line
from masa_ros.cli.main import main
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def act(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace all commands by one named ``act`` that does what it is given."""
    def install(run: Callable[[argparse.Namespace], int]) -> None:
        def add_parser(subparsers: Any) -> None:
            subparsers.add_parser('act').set_defaults(run=run)

        monkeypatch.setattr(command_line, 'COMMANDS', {'act': ('some.module', 'does something')})
        monkeypatch.setattr(command_line, 'import_module',
                            lambda name: SimpleNamespace(add_parser=add_parser))

    return install


def raiser(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


def test_the_exit_code_is_that_of_the_command(act: Callable[..., None]) -> None:
    act(lambda args: 7)
    assert main(['act']) == 7


@pytest.mark.parametrize('error', [ValueError('bad\n  value'), FileNotFoundError('bad value'),
                                   ModuleNotFoundError('bad value'), OSError('bad value')])
def test_what_the_user_can_mend_is_one_line(
    act: Callable[..., None], capsys: pytest.CaptureFixture[str], error: Exception,
) -> None:
    act(raiser(error))
    assert main(['act']) == 2
    assert capsys.readouterr().err == 'masa_ros: error: bad value\n'


def test_a_fault_of_ours_says_so_without_a_traceback(
    act: Callable[..., None], capsys: pytest.CaptureFixture[str],
) -> None:
    act(raiser(KeyError('x')))
    assert main(['act']) == 2
    shown = capsys.readouterr().err
    assert 'KeyError' in shown
    assert 'Traceback' not in shown


@pytest.mark.parametrize('error', [ValueError('bad value'), KeyError('x')])
def test_debug_lets_errors_through(act: Callable[..., None], error: Exception) -> None:
    act(raiser(error))
    with pytest.raises(type(error)):
        main(['--debug', 'act'])


def test_an_interrupt_has_its_own_exit_code(act: Callable[..., None]) -> None:
    act(raiser(KeyboardInterrupt()))
    assert main(['act']) == 130


@pytest.mark.parametrize('arguments', [[], ['nonsense'], ['track']])
def test_wrong_arguments_end_with_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert 'usage: masa_ros' in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(['--help'])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in command_line.COMMANDS)


@pytest.mark.parametrize('name', sorted(command_line.COMMANDS))
def test_every_command_has_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, '--help'])
    assert end.value.code == 0
    assert f'usage: masa_ros {name}' in capsys.readouterr().out


def test_the_version_is_that_of_the_package() -> None:
    output = subprocess.run([sys.executable, '-m', 'masa_ros', '--version'], cwd=ROOT, check=True,
                            capture_output=True, text=True)
    text = (ROOT / 'package.xml').read_text()
    assert output.stdout.split()[0] == 'masa_ros'
    assert f'<version>{output.stdout.split()[1]}</version>' in text


def test_help_imports_neither_torch_nor_ros() -> None:
    code = ("import sys; from masa_ros.cli.main import build_parser; build_parser(['--help']); "
            "print(sorted({'torch', 'rclpy', 'cv2'} & set(sys.modules)))")
    output = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True,
                            capture_output=True, text=True)
    assert output.stdout.strip() == '[]'


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f'{sys.executable} -m masa_ros track --help | head -c 10'
    output = subprocess.run(['bash', '-c', command], cwd=ROOT, check=True, capture_output=True,
                            text=True)
    assert output.stderr == ''

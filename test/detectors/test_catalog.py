"""The registry of detectors: names, the command line's short form, missing libraries."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from masa_ros.detectors import (
    build_detector,
    CATALOG,
    DetectorConfig,
    import_library,
    read_choice,
    text_detector,
)
from masa_ros.structures.settings import from_mapping
import pytest


@pytest.mark.parametrize(('text', 'fields'), [
    ('none', {'name': 'none'}),
    ('grid', {'name': 'grid'}),
    ('grounding_dino', {'name': 'grounding_dino'}),
    ('grounding_dino:/w/dino', {'name': 'grounding_dino', 'checkpoint': '/w/dino'}),
    ('torchvision:fasterrcnn_resnet50_fpn',
     {'name': 'torchvision', 'architecture': 'fasterrcnn_resnet50_fpn'}),
    ('yolox.onnx', {'name': 'onnx', 'checkpoint': 'yolox.onnx'}),
    ('/a:b/YOLOX.ONNX', {'name': 'onnx', 'checkpoint': '/a:b/YOLOX.ONNX'}),
])
def test_a_detector_is_read_from_one_text(text: str, fields: dict[str, str]) -> None:
    assert read_choice(text) == fields
    from_mapping(DetectorConfig, fields)


def test_a_text_that_names_no_detector_is_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r'expected an \.onnx file, none, proposals, grid, onnx'):
        read_choice('yolo')


def test_no_detector_is_built_for_none() -> None:
    assert build_detector(DetectorConfig()) is None
    assert not DetectorConfig().enabled


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown detector 'yolo'"):
        build_detector(DetectorConfig(name='yolo'))


def test_a_text_alone_takes_the_detector_that_goes_with_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert text_detector('masa_detic') == 'detic'
    built: list[tuple[DetectorConfig, Any]] = []
    monkeypatch.setitem(sys.modules, 'fake_detector', SimpleNamespace(
        build=lambda config, model: built.append((config, model))))
    monkeypatch.setitem(CATALOG, 'grounding_dino', ('fake_detector', 'build'))
    model = SimpleNamespace(name='tiny')
    build_detector(DetectorConfig(text='car'), model)
    assert built[0][0].name == 'grounding_dino'
    assert built[0][1] is model


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ValueError, match=r"pip install 'masa_ros\[grounding-dino\]'"):
        import_library('transformers', 'grounding_dino', "'masa_ros[grounding-dino]'")


@pytest.mark.parametrize(('name', 'library'), [
    ('onnx', 'onnxruntime'), ('torchvision', 'torchvision'),
    ('grounding_dino', 'transformers')])
def test_each_detector_says_which_package_it_lacks(name: str, library: str) -> None:
    code = (
        'import sys\n'
        f'sys.modules[{library!r}] = None\n'
        'from masa_ros.detectors import build_detector, DetectorConfig\n'
        'import tempfile, pathlib\n'
        'file = pathlib.Path(tempfile.mkdtemp()) / "net.onnx"; file.touch()\n'
        'try:\n'
        f'    build_detector(DetectorConfig(name={name!r}, checkpoint=str(file), text="car",\n'
        '                                  architecture="fcos_resnet50_fpn"))\n'
        'except ValueError as error: print(error)\n')
    output = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                            check=True).stdout
    assert f'needs the Python package {library}' in output
    assert 'pip install' in output


def test_settings_and_choices_load_no_library_of_a_detector() -> None:
    code = ('import sys\n'
            'import masa_ros.pipeline, masa_ros.detectors.selection, masa_ros.detectors.merge\n'
            'print([name for name in ("torch", "transformers", "onnxruntime", "torchvision")\n'
            '       if name in sys.modules])')
    output = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                            check=True).stdout
    assert output.strip() == '[]'

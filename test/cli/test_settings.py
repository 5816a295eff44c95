"""Settings from the command line and from YAML."""

from __future__ import annotations

import argparse
from pathlib import Path

from masa_ros.cli.settings import add_settings, read_settings, read_yaml, setting_values
import pytest


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_settings(parser)
    return parser.parse_args(words)


def test_without_options_everything_is_default() -> None:
    assert setting_values(parse()) == {}
    _, config = read_settings(parse())
    assert config.model.name == 'tiny'


def test_options_go_before_the_file_and_keep_the_rest_of_it(tmp_path: Path) -> None:
    file = tmp_path / 'a.yaml'
    file.write_text('model: {name: sam_vit_b, max_masks: 7}\ntracker.match_threshold: 0.4\n')
    node, config = read_settings(parse('--config', str(file), '--model', 'classical', '--set',
                                       'detections.tolerance_s=0.02'))
    assert (config.model.name, config.model.max_masks) == ('classical', 7)
    assert config.tracker.match_threshold == 0.4
    assert node.detections.tolerance_s == 0.02


def test_a_detector_is_a_file_with_perhaps_its_classes() -> None:
    _, config = read_settings(parse('--detector', 'a.onnx', '--classes', 'b.txt'))
    assert config.detector.name == 'onnx'
    assert config.detector.checkpoint == 'a.onnx'
    assert config.detector.class_file == 'b.txt'
    with pytest.raises(ValueError, match='with --detector'):
        setting_values(parse('--classes', 'b.txt'))


def test_a_detector_is_named_with_what_it_needs() -> None:
    _, config = read_settings(parse('--detector', 'torchvision:fasterrcnn_resnet50_fpn',
                                    '--set', 'detector.checkpoint=seeded'))
    assert config.detector.name == 'torchvision'
    assert config.detector.architecture == 'fasterrcnn_resnet50_fpn'
    _, config = read_settings(parse('--detector', 'grounding_dino', '--text', 'car . person'))
    assert (config.detector.name, config.detector.text) == ('grounding_dino', 'car . person')
    with pytest.raises(ValueError, match='unknown detector'):
        read_settings(parse('--detector', 'yolo'))


def test_a_text_alone_asks_for_the_detector_of_the_model() -> None:
    _, config = read_settings(parse('--text', 'car . person'))
    assert config.detector.name == 'none'
    assert config.detector.enabled
    assert not read_settings(parse())[1].detector.enabled


def test_proposals_are_the_models_own_or_the_grids() -> None:
    assert setting_values(parse('--proposals', 'grid')) == {'detector.name': 'grid'}
    assert setting_values(parse('--proposals', 'own')) == {'detector.name': 'proposals'}
    with pytest.raises(ValueError, match='both say who finds the boxes'):
        setting_values(parse('--proposals', 'grid', '--detector', 'a.onnx'))


def test_regions_are_one_file_and_any_number_of_polygons() -> None:
    _, config = read_settings(parse(
        '--ignore', 'own bonnet, left.png', '--ignore', '0,600 300,500 640,600.5',
        '--ignore', '0,0 9,0 9,9', '--interest', '1,1 50,1 50,50'))
    assert config.regions.ignore_image == 'own bonnet, left.png'
    assert config.regions.ignore_polygons == ('0,600 300,500 640,600.5', '0,0 9,0 9,9')
    assert config.regions.interest_polygons == ('1,1 50,1 50,50',)
    with pytest.raises(ValueError, match='--interest has 2 files'):
        setting_values(parse('--interest', 'a.png', '--interest', 'b.png'))
    with pytest.raises(ValueError, match='at least three corners'):
        read_settings(parse('--ignore', '1,2 3,4'))


def test_the_parameter_file_of_the_node_is_read(root: Path) -> None:
    node, config = read_settings(parse('--config', str(root / 'config' / 'tracker.yaml')))
    assert node == read_settings(parse())[0]
    assert config.model == read_settings(parse())[1].model


@pytest.mark.parametrize(('words', 'text'), [
    (['--set', 'model.nme=x'], "did you mean 'model.name'"),
    (['--set', 'model.max_masks'], 'expected NAME=VALUE'),
    (['--set', 'model.max_masks=many'], 'expected a whole number'),
    (['--model', 'nonsense'], 'expected one of'),
])
def test_mistakes_are_named(words: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_settings(parse(*words))


def test_files_that_are_missing_or_no_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='is missing'):
        read_yaml(tmp_path / 'no.yaml')
    for text, message in (('a: [', 'is not YAML'), ('- 1', 'holds a list')):
        (tmp_path / 'a.yaml').write_text(text)
        with pytest.raises(ValueError, match=message):
            read_yaml(tmp_path / 'a.yaml')

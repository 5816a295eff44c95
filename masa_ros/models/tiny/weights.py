"""Weights of the small network: half precision in the package, with a page about their origin."""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import json
from pathlib import Path
from typing import Any

from masa_ros.models.model import WeightsInfo
from masa_ros.models.tiny.network import TinyConfig, TinyNetwork
from masa_ros.structures.settings import flatten, from_mapping
import torch

SHIPPED = Path(__file__).with_name('weights.pt')
"""The trained network; ``weights.json`` beside it says from what, how and with which licences."""


def load_network(path: str | Path = '') -> tuple[TinyNetwork, WeightsInfo]:
    """
    Load the network that ships with the package, or another one.

    Parameters
    ----------
    path : str or Path
        File of `save_weights` or a checkpoint of the trainer; empty takes the shipped one.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If it is not a file of this network.

    """
    file = Path(path) if path else SHIPPED
    if not file.is_file():
        raise FileNotFoundError(
            f'the weights {file} of the model tiny are not there; leave model.checkpoint empty '
            'to take those of the package, or make some with masa_ros train')
    try:
        stored: Any = torch.load(file, map_location='cpu', weights_only=True)
    except Exception as error:
        raise ValueError(f'{file} cannot be read as weights of the model tiny ({error}); it is '
                         'damaged or of another kind') from error
    if not isinstance(stored, dict) or not {'config', 'average'} <= stored.keys():
        raise ValueError(f'{file} holds no config and averaged weights, so it is not a file of '
                         'the model tiny')
    sizes = {name.removeprefix('network.'): value for name, value in stored['config'].items()
             if name.startswith('network.')}
    network = TinyNetwork(from_mapping(TinyConfig, sizes, str(file)))
    try:
        network.load_state_dict(
            {name: value.float() for name, value in stored['average'].items()})
    except RuntimeError as error:
        raise ValueError(f'{file} does not fit the model tiny: {error}') from error
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return network, WeightsInfo((file.name,), digest, bool(stored.get('trained', True)))


def save_weights(
    path: str | Path, network: TinyNetwork, metadata: Mapping[str, Any], trained: bool = True,
) -> None:
    """
    Write a network in half precision, and its metadata as JSON beside it.

    Parameters
    ----------
    path : str or Path
        The file to write; the metadata gets the same name with ``.json``.
    network : TinyNetwork
        What to write.
    metadata : mapping
        Data, licences, command, seed, time and figures; anything JSON can hold.
    trained : bool
        ``False`` for random weights.

    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    config = {f'network.{name}': value for name, value in flatten(network.config).items()}
    scratch = file.with_suffix('.writing')
    torch.save({
        'config': config, 'trained': trained,
        'average': {name: value.half() for name, value in network.state_dict().items()}},
        scratch)
    scratch.replace(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.with_suffix('.json').write_text(
        json.dumps({'file': file.name, 'sha256': digest, **metadata}, indent=2) + '\n')

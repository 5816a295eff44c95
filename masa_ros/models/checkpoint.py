"""
Weight files as their authors publish them, read without running anything inside.

A MASA file is what mmengine saves: a dict with the weights under ``state_dict`` beside notes and
training state. A SAM file is a plain state dict. Every entry is checked by name and shape before
a network gets it; the only ones left out are listed here.

Mapping of names: the networks use the published names as they are. SAM's own files differ by
prefix only: ``image_encoder.`` is ``detector.backbone.``, ``prompt_encoder.`` and
``mask_decoder.`` get ``detector.`` in front.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import logging
from pathlib import Path
import pickle
import re
from typing import Any
import zipfile

from masa_ros.models.backbones.swin import relative_position_index
from masa_ros.models.detector_entries import detector_entries
from masa_ros.models.masa_network import MasaNetwork
from masa_ros.models.variants import Variant, VARIANTS
import torch
from torch import Tensor

_LOG = logging.getLogger(__name__)

# Constants that some versions of the libraries store and others do not.
_CONSTANTS = re.compile(r'(relative_position_index|position_ids|num_batches_tracked)$')
# Parts that exist only while training: extra losses, auxiliary and mask heads, averaged copies.
_TRAINING_ONLY = re.compile(
    r'(^|\.)(data_preprocessor|loss\w*|aux\w*_heads?|auxiliary\w*|mask_head|semantic_head|'
    r'teacher|ema\w*)\.')
_SAM_PREFIXES = {
    'image_encoder.': 'detector.backbone.',
    'prompt_encoder.': 'detector.prompt_encoder.',
    'mask_decoder.': 'detector.mask_decoder.',
}
# Whose objects a training checkpoint holds beside the weights (log buffers, configurations,
# dates). They are replaced by inert ones: their code is neither needed nor run.
_INERT = re.compile(
    r'^(mmengine|mmcv|mmdet|masa|numpy|pathlib|datetime|argparse|_codecs)\.|^builtins\.getattr$'
    r'|^getattr$')
_NAMED_AT_MOST = 6


class _Inert:
    """Stands in for an object of training code; ignores whatever it is built from."""

    def __new__(cls, *_: object, **__: object) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def read_entries(path: str | Path) -> dict[str, Tensor]:
    """
    Read the weights of a PyTorch file without running code from it.

    Parameters
    ----------
    path : str or Path
        File written by ``torch.save``: a state dict, or a dict with one under ``state_dict`` or
        ``model``.

    Returns
    -------
    dict of str to Tensor
        Entries without the ``module.`` prefix of data-parallel training. Tensors are views of
        the mapped file where its format allows; copy what you keep.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no PyTorch file, is damaged, wants to run code, or holds no weights.

    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f'no weights file at {path}')
    _refuse_what_is_no_checkpoint(path)
    content = _load(path)
    for key in ('state_dict', 'model'):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise ValueError(f'{path} holds a {type(content).__name__}, expected weights by name')
    entries = {str(name).removeprefix('module.'): value for name, value in content.items()}
    odd = sorted(name for name, value in entries.items()
                 if not isinstance(value, Tensor) or value.layout != torch.strided)
    if odd or not entries:
        raise ValueError(f'{path} holds no plain set of weights: '
                         + (f'{_some(odd)} is no tensor' if odd else 'it is empty'))
    return entries


def _refuse_what_is_no_checkpoint(path: Path) -> None:
    """Name the usual mishaps of downloads before torch meets them."""
    if not path.is_file():
        raise ValueError(f'{path} is a folder, expected a weights file')
    with path.open('rb') as file:
        start = file.read(64)
    problem = ''
    if not start:
        problem = 'is empty'
    elif start.startswith(b'version https://git-lfs'):
        problem = 'is a Git LFS pointer, not the file itself'
    elif start.lstrip().lower().startswith((b'<!doctype', b'<html')):
        problem = 'is a web page, not the file itself'
    elif start.startswith(b'PK') and not zipfile.is_zipfile(path):
        problem = f'is cut off after {path.stat().st_size} bytes'
    if problem:
        raise ValueError(f'weights file {path} {problem}; download it again')


def _load(path: Path) -> Any:
    """Load with ``weights_only``; training objects beside the weights become inert."""
    mapped = zipfile.is_zipfile(path)
    try:
        if mapped:
            foreign = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
            refused = sorted(name for name in foreign if not _INERT.search(name))
            if refused:
                raise ValueError(
                    f'weights file {path} wants to run {_some(refused)} when it is loaded, which '
                    'no weights need; it was not loaded. Get the file from its authors again')
            inert: Any = [(_Inert, name) for name in foreign]
            with torch.serialization.safe_globals(inert):
                return torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r'GLOBAL (\S+)', str(error))
        if wanted:
            raise ValueError(
                f'weights file {path} wants to run {wanted[1]} when it is loaded, which no '
                'weights need; it was not loaded. Get the file from its authors again'
            ) from None
        raise ValueError(f'weights file {path} is no PyTorch file, or damaged '
                         f'({_first_line(error)}); download it again') from error
    except ValueError:
        raise
    except Exception as error:
        # torch reports damage as almost anything: RuntimeError, EOFError, KeyError, struct.error.
        raise ValueError(f'weights file {path} is damaged or no PyTorch file '
                         f'({_first_line(error)}); download it again') from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:160]


def published_entries(variant: Variant) -> dict[str, tuple[int, ...]]:
    """
    Names and shapes of a variant's published file, constants included.

    Those under ``detector.`` that tracking does not need (the text-driven detectors of ``gdino``
    and ``detic``) are part of it.
    """
    with torch.device('meta'):
        network = MasaNetwork(variant)
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return {**own, **detector_entries(variant.name)}


def load_network(
    variant: Variant, masa: str | Path, sam: str | Path | None = None,
) -> MasaNetwork:
    """
    Build a variant with the weights of published files.

    Parameters
    ----------
    variant : Variant
        Which one.
    masa : str or Path
        MASA file. With SAM's weights under ``detector.`` it is enough; without them `sam` is
        needed.
    sam : str or Path, optional
        SAM file. Where both files hold SAM's weights, the MASA file's are used, because the
        adapter was trained on them, and a difference is reported as a warning.

    Returns
    -------
    MasaNetwork
        In evaluation mode, frozen, float32, on the CPU.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    ValueError
        If a file cannot be read safely, holds other weights, or lacks, adds or reshapes an entry.

    """
    entries = read_entries(masa)
    where = str(masa)
    if sam is not None:
        if not variant.has_sam:
            raise ValueError(f'the variant {variant.name} has no SAM inside, but a SAM file was '
                             f'given ({sam}); leave it out')
        entries = _join(_sam_entries(sam, variant), entries, sam, masa)
        where = f'{masa} with {sam}'
    with torch.device('meta'):
        network = MasaNetwork(variant)
    network.load_state_dict(_checked(network, variant, entries, where), assign=True)
    return network.eval().requires_grad_(False)


def load_backbone(network: MasaNetwork, path: str | Path) -> None:
    """
    Give a network under construction its frozen parts, and leave adapter and heads as they are.

    Parameters
    ----------
    network : MasaNetwork
        Adapter and heads are initialized for training.
    path : str or Path
        The SAM file of a SAM variant, or a MASA file with the encoder inside.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    ValueError
        If it cannot be read safely or lacks entries.

    """
    variant = network.variant
    entries = read_entries(path)
    if variant.has_sam and identify(entries) == variant.backbone:
        entries = _sam_entries(path, variant)
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()
              if name.startswith(('backbone.', 'detector.'))}
    bad = [name for name, shape in wanted.items() if not _CONSTANTS.search(name)
           and (name not in entries or tuple(entries[name].shape) != shape)]
    if bad:
        raise ValueError(
            f'{path} does not hold the encoder of the variant {variant.name}: {len(bad)} entries '
            f'are missing or of another shape, such as {_some(bad)}')
    network.load_state_dict(
        {name: _weight(name, shape, entries.get(name), str(path))
         for name, shape in wanted.items()}, strict=False, assign=True)


def lacks_sam(path: str | Path) -> bool:
    """Whether a file holds an adapter without SAM's weights, unlike the published ones."""
    parts = {name.split('.')[0] for name in read_entries(path)}
    return 'masa_adapter' in parts and 'detector' not in parts


def _sam_entries(path: str | Path, variant: Variant) -> dict[str, Tensor]:
    """Read entries of a SAM file under MASA's names."""
    entries = read_entries(path)
    found = identify(entries)
    if found != variant.backbone:
        raise ValueError(f'{path} looks like {_article(found)} file, but the variant '
                         f'{variant.name} needs one of {variant.backbone}')
    renamed = {}
    for name, value in entries.items():
        for prefix, ours in _SAM_PREFIXES.items():
            if name.startswith(prefix):
                renamed[ours + name.removeprefix(prefix)] = value
                break
        else:
            if name not in ('pixel_mean', 'pixel_std'):
                raise ValueError(f'{path} has an unexpected entry {name}; a SAM file has only '
                                 + ', '.join(_SAM_PREFIXES))
    return renamed


def _join(
    sam: dict[str, Tensor], masa: dict[str, Tensor], sam_path: str | Path, masa_path: str | Path,
) -> dict[str, Tensor]:
    """Both files' entries; MASA's win."""
    for name in sorted(sam.keys() & masa.keys()):
        one, two = sam[name], masa[name]
        if not torch.equal(one, two) and not _alike(one, two):
            _LOG.warning(
                "%s and %s disagree on SAM's weights (first at %s); those of the MASA file are "
                'used, because its adapter was trained on them', sam_path, masa_path, name)
            break
    return {**sam, **masa}


def _alike(one: Tensor, two: Tensor) -> bool:
    """Whether two entries agree up to the rounding of half precision."""
    return one.shape == two.shape and torch.allclose(
        one.float(), two.float(), rtol=1e-2, atol=1e-3)


def _checked(
    network: MasaNetwork, variant: Variant, entries: Mapping[str, Tensor], where: str,
) -> dict[str, Tensor]:
    """Entries for the network, each checked; see `load_network`."""
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    extra = detector_entries(variant.name)
    known = {**expected, **extra}
    training = [name for name in entries if name not in known and _TRAINING_ONLY.search(name)]
    if training:
        _LOG.info('%s: %d entries of training-only parts left out (%s)', where, len(training),
                  _some(training))
    missing = [name for name in known if name not in entries and not _CONSTANTS.search(name)]
    unexpected = [name for name in entries if name not in known and name not in training
                  and not _CONSTANTS.search(name)]
    reshaped = [f'{name} is {tuple(entries[name].shape)}, expected {shape}'
                for name, shape in known.items()
                if name in entries and tuple(entries[name].shape) != shape]
    if missing or unexpected or reshaped:
        raise ValueError(_mismatch(variant, entries, where, missing, unexpected, reshaped))
    weights = {}
    for name, shape in expected.items():
        weights[name] = _weight(name, shape, entries.get(name), where)
    return weights


def _weight(name: str, shape: tuple[int, ...], value: Tensor | None, where: str) -> Tensor:
    """One entry as the network holds it: a copy in float32, or its constant."""
    if name.endswith('relative_position_index'):
        return relative_position_index(round(shape[0] ** 0.5))
    if value is None or name.endswith('num_batches_tracked'):
        return torch.zeros(shape, dtype=torch.int64)
    if not value.is_floating_point():
        raise ValueError(f'{where}: {name} holds {value.dtype}, expected floating point numbers')
    value = value.to(torch.float32, copy=True)
    # A finite sum tells it in one pass; only a sum that overflows needs the second look.
    if not torch.isfinite(value.sum()) and not torch.isfinite(value).all():
        raise ValueError(f'{where}: {name} holds numbers that are not finite; the file is damaged '
                         'or its training failed')
    return value


def _mismatch(
    variant: Variant, entries: Mapping[str, Tensor], where: str, missing: list[str],
    unexpected: list[str], reshaped: list[str],
) -> str:
    """Say what is wrong with a file, and what it looks like instead."""
    found = identify(entries)
    head = f'{where} does not fit the variant {variant.name}'
    if found and found != variant.name:
        head += f': this looks like {_article(found)} file'
        if found in VARIANTS:
            head += f', you asked for {variant.name}'
    elif variant.has_sam and missing and all(
            name.startswith('detector.') for name in missing) and len(missing) > 100:
        head += (': it has no SAM weights; give the SAM file too (sam=..., or the checkpoint '
                 'setting)')
    parts = [head]
    for label, names in (('missing', missing), ('unexpected', unexpected),
                         ('of another shape', reshaped)):
        if names:
            parts.append(f'{len(names)} {label}: {_some(names)}')
    return '; '.join(parts)


def identify(entries: Mapping[str, Tensor]) -> str:
    """
    Tell which published file a set of entries looks like.

    Returns
    -------
    str
        Name of a MASA variant, of a SAM model, ``ultralytics`` and the like; empty when unknown.

    """
    widths = {768: 'b', 1024: 'l', 1280: 'h'}
    position = entries.get('detector.backbone.pos_embed')
    if position is not None and position.ndim == 4:
        return f'sam_vit{widths.get(position.shape[-1], "?")}'
    position = entries.get('image_encoder.pos_embed')
    if position is not None and position.ndim == 4:
        return f'sam_vit_{widths.get(position.shape[-1], "?")}'
    signs = {
        'image_encoder.layers.0.blocks.0.conv1.c.weight': 'mobile_sam',
        'detector.language_model.language_backbone.body.model.pooler.dense.weight': 'gdino',
        'detector.roi_head.bbox_head.0.fc_cls.zs_weight': 'detic',
        'backbone.layer4.2.conv3.weight': 'r50',
        'layer4.2.conv3.weight': 'torchvision ResNet-50',
    }
    for name, label in signs.items():
        if name in entries:
            return label
    return _by_width(entries)


def _by_width(entries: Mapping[str, Tensor]) -> str:
    """Recognize a MASA file without its backbone by the width that the adapter takes."""
    lateral = entries.get('masa_adapter.0.lateral_convs.0.conv.weight')
    if lateral is None or lateral.ndim != 4:
        return ''
    return {768: 'sam_vitb', 1024: 'sam_vitl', 1280: 'sam_vith'}.get(lateral.shape[1], '')


def _article(name: str) -> str:
    return f'a {name}' if name else 'an unknown'


def _some(names: Iterable[str]) -> str:
    """Return the first few names, and how many more there are."""
    listed = list(names)
    text = ', '.join(listed[:_NAMED_AT_MOST])
    rest = len(listed) - _NAMED_AT_MOST
    return f'{text} and {rest} more' if rest > 0 else text

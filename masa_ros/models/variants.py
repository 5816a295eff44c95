"""The published MASA variants: sizes, input rules and weight files. No torch needed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InputRule:
    """
    How an image becomes the network's input.

    Parameters
    ----------
    longest, shortest : int
        The image is scaled, keeping its shape, as large as possible with its longer side at most
        `longest` and its shorter side at most `shortest` pixels.
    divisor : int
        Zeros are added at the right and bottom, after normalization, to a multiple of this.
    resize_float : bool
        Scale in floating point; otherwise grey levels are rounded to integers on the way. The
        two differ by up to 0.75 grey levels.

    """

    longest: int
    shortest: int
    divisor: int
    resize_float: bool

    def scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after scaling, before padding; at least one pixel."""
        factor = min(self.longest / max(height, width), self.shortest / min(height, width))
        return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a scaled image after padding."""
        return (-(-height // self.divisor) * self.divisor,
                -(-width // self.divisor) * self.divisor)


@dataclass(frozen=True)
class Variant:
    """
    One published MASA model.

    Parameters
    ----------
    name : str
        Short name, as in the authors' files.
    model : str
        Name in the catalog of models.
    backbone : str
        ``resnet50``, ``swin_b_window12``, ``swin_b_window7`` or the name of a SAM model.
    input_rule : InputRule
        The authors' inference setting.
    strides : tuple of int
        Network pixels per cell of the five pyramid levels.
    roi_levels : int
        Number of levels that boxes are pooled from.
    box_convs, box_linears : int
        Hidden layers of the box head.
    file : str
        Name of the published weights file; empty where none was published.

    """

    name: str
    model: str
    backbone: str
    input_rule: InputRule
    strides: tuple[int, ...] = (4, 8, 16, 32, 64)
    roi_levels: int = 4
    box_convs: int = 0
    box_linears: int = 2
    file: str = ''

    @property
    def has_sam(self) -> bool:
        """Whether the backbone is SAM's encoder, with its mask decoder at hand."""
        return self.backbone.startswith('sam_')

    @property
    def has_swin(self) -> bool:
        """Whether the backbone is a Swin Transformer inside a detector."""
        return self.backbone.startswith('swin_')


_SAM_INPUT = InputRule(1024, 1024, 1024, resize_float=False)
_DEEP_STRIDES = (8, 16, 32, 64, 128)

VARIANTS: dict[str, Variant] = {
    variant.name: variant for variant in (
        Variant('r50', 'masa_r50', 'resnet50',
                InputRule(1024, 1024, 32, resize_float=True),
                box_convs=4, box_linears=1, file='masa_r50.pth'),
        Variant('sam_vitb', 'masa_sam_vit_b', 'sam_vit_b', _SAM_INPUT,
                file='sam_vitb_masa.pth'),
        Variant('sam_vitl', 'masa_sam_vit_l', 'sam_vit_l', _SAM_INPUT),
        Variant('sam_vith', 'masa_sam_vit_h', 'sam_vit_h', _SAM_INPUT,
                file='sam_vith_masa.pth'),
        Variant('gdino', 'masa_gdino', 'swin_b_window12',
                InputRule(1333, 800, 32, resize_float=True),
                strides=_DEEP_STRIDES, roi_levels=3, file='gdino_masa.pth'),
        Variant('detic', 'masa_detic', 'swin_b_window7',
                InputRule(1333, 800, 32, resize_float=False),
                strides=_DEEP_STRIDES, roi_levels=3, file='detic_masa.pth'),
    )
}
"""By short name. ``sam_vitl`` has no published adapter: it can be trained, not downloaded."""


def find_variant(name: str) -> Variant:
    """
    Find a variant by its short name (``r50``) or its model name (``masa_r50``).

    Raises
    ------
    ValueError
        If there is none.

    """
    for variant in VARIANTS.values():
        if name in (variant.name, variant.model):
            return variant
    raise ValueError(f'unknown MASA variant {name!r}; known ones are ' + ', '.join(
        f'{variant.name} (or {variant.model})' for variant in VARIANTS.values()))

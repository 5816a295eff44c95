"""
Names of Grounding-DINO's weights: from mmdetection's, in MASA files, to those of ``transformers``.

A MASA file carries the detector under ``detector.``; the names below are what follows. Where one
entry of a file is more than one of the library, or the other way round, the rule says how:

=====================================================  ==========================================
mmdetection                                            transformers
=====================================================  ==========================================
``backbone.``                                          ``model.backbone.conv_encoder.model.``, see
                                                       `SWIN_RULES`; our own Swin is used instead
``neck.convs.i.conv``, ``.gn``                         ``model.input_proj_vision.i.0``, ``.1``
``neck.extra_convs.0.conv``, ``.gn``                   ``model.input_proj_vision.3.0``, ``.1``
``language_model.language_backbone.body.model.``       ``model.text_backbone.``
``text_feat_map``                                      ``model.text_projection``
``level_embed``, ``query_embedding``                   ``model.level_embed``,
                                                       ``model.query_position_embeddings``
``memory_trans_fc``, ``memory_trans_norm``             ``model.enc_output``, ``enc_output_norm``
``encoder.layers.i``                                   ``model.encoder.layers.i.deformable_layer``
``encoder.text_layers.i``                              ``...i.text_enhancer_layer``
``encoder.fusion_layers.i``                            ``...i.fusion_layer``
``decoder.layers.i``, ``norm``, ``ref_point_head``     ``model.decoder.layers.i``, ``layer_norm``,
                                                       ``reference_points_head``
``...attn.in_proj_weight``, ``in_proj_bias``           ``query``, ``key``, ``value``, each a third
``bbox_head.reg_branches.0`` to ``5``                  ``bbox_embed.i`` and the same again as
                                                       ``model.decoder.bbox_embed.i``
``bbox_head.reg_branches.6``                           ``model.encoder_output_bbox_embed``
=====================================================  ==========================================

Not used: `UNUSED`. Not in the file: the vocabulary of the tokenizer.

References
----------
open-mmlab/mmdetection, ``mmdet/models/detectors/grounding_dino.py`` and
``mmdet/models/layers/transformer/grounding_dino_layers.py``; huggingface/transformers,
``models/grounding_dino/modeling_grounding_dino.py``.

"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import re

import torch
from torch import Tensor

UNUSED = {
    r'dn_query_generator\.label_embedding\.weight':
        'queries with noise, which exist only while training',
    r'language_model\.language_backbone\.body\.model\.pooler\.dense\.(weight|bias)':
        "BERT's sentence vector; only its token vectors are used",
    r'language_model\.language_backbone\.body\.model\.embeddings\.position_ids':
        'the numbers from 0 up, which some versions of transformers store',
    r'backbone\.stages\.\d+\.blocks\.\d+\.attn\.w_msa\.relative_position_index':
        'a constant of the window size',
}
"""Patterns of entries that inference does without, and why."""

_BERT = r'language_model\.language_backbone\.body\.model\.'
_SWIN = 'model.backbone.conv_encoder.model.'

# Pattern to names; {0}, {1} ... are its groups. Entries that are split come with a mark.
RULES: dict[str, tuple[str, ...]] = {
    r'level_embed': ('model.level_embed',),
    r'query_embedding\.weight': ('model.query_position_embeddings.weight',),
    r'text_feat_map\.(weight|bias)': ('model.text_projection.{0}',),
    r'memory_trans_fc\.(weight|bias)': ('model.enc_output.{0}',),
    r'memory_trans_norm\.(weight|bias)': ('model.enc_output_norm.{0}',),
    r'neck\.convs\.(\d+)\.conv\.(weight|bias)': ('model.input_proj_vision.{0}.0.{1}',),
    r'neck\.convs\.(\d+)\.gn\.(weight|bias)': ('model.input_proj_vision.{0}.1.{1}',),
    r'neck\.extra_convs\.0\.conv\.(weight|bias)': ('model.input_proj_vision.3.0.{0}',),
    r'neck\.extra_convs\.0\.gn\.(weight|bias)': ('model.input_proj_vision.3.1.{0}',),
    _BERT + r'((?:embeddings|encoder)\..*)': ('model.text_backbone.{0}',),
    # Encoder: image layers, text layers, and the fusion of both.
    r'encoder\.layers\.(\d+)\.self_attn\.(.*)':
        ('model.encoder.layers.{0}.deformable_layer.self_attn.{1}',),
    r'encoder\.layers\.(\d+)\.ffn\.layers\.0\.0\.(.*)':
        ('model.encoder.layers.{0}.deformable_layer.fc1.{1}',),
    r'encoder\.layers\.(\d+)\.ffn\.layers\.1\.(.*)':
        ('model.encoder.layers.{0}.deformable_layer.fc2.{1}',),
    r'encoder\.layers\.(\d+)\.norms\.0\.(.*)':
        ('model.encoder.layers.{0}.deformable_layer.self_attn_layer_norm.{1}',),
    r'encoder\.layers\.(\d+)\.norms\.1\.(.*)':
        ('model.encoder.layers.{0}.deformable_layer.final_layer_norm.{1}',),
    r'encoder\.text_layers\.(\d+)\.self_attn\.attn\.in_proj_(weight|bias)': tuple(
        'model.encoder.layers.{0}.text_enhancer_layer.self_attn.' + part + '.{1}'
        for part in ('query', 'key', 'value')),
    r'encoder\.text_layers\.(\d+)\.self_attn\.attn\.out_proj\.(.*)':
        ('model.encoder.layers.{0}.text_enhancer_layer.self_attn.out_proj.{1}',),
    r'encoder\.text_layers\.(\d+)\.ffn\.layers\.0\.0\.(.*)':
        ('model.encoder.layers.{0}.text_enhancer_layer.fc1.{1}',),
    r'encoder\.text_layers\.(\d+)\.ffn\.layers\.1\.(.*)':
        ('model.encoder.layers.{0}.text_enhancer_layer.fc2.{1}',),
    r'encoder\.text_layers\.(\d+)\.norms\.0\.(.*)':
        ('model.encoder.layers.{0}.text_enhancer_layer.layer_norm_before.{1}',),
    r'encoder\.text_layers\.(\d+)\.norms\.1\.(.*)':
        ('model.encoder.layers.{0}.text_enhancer_layer.layer_norm_after.{1}',),
    r'encoder\.fusion_layers\.(\d+)\.gamma_v':
        ('model.encoder.layers.{0}.fusion_layer.vision_param',),
    r'encoder\.fusion_layers\.(\d+)\.gamma_l':
        ('model.encoder.layers.{0}.fusion_layer.text_param',),
    r'encoder\.fusion_layers\.(\d+)\.layer_norm_v\.(.*)':
        ('model.encoder.layers.{0}.fusion_layer.layer_norm_vision.{1}',),
    r'encoder\.fusion_layers\.(\d+)\.layer_norm_l\.(.*)':
        ('model.encoder.layers.{0}.fusion_layer.layer_norm_text.{1}',),
    r'encoder\.fusion_layers\.(\d+)\.attn\.(values_|out_|)v_proj\.(.*)':
        ('model.encoder.layers.{0}.fusion_layer.attn.{1}vision_proj.{2}',),
    r'encoder\.fusion_layers\.(\d+)\.attn\.(values_|out_|)l_proj\.(.*)':
        ('model.encoder.layers.{0}.fusion_layer.attn.{1}text_proj.{2}',),
    # Decoder: among the queries, to the text, to the image, feed-forward; a norm after each.
    r'decoder\.layers\.(\d+)\.self_attn\.attn\.in_proj_(weight|bias)': tuple(
        'model.decoder.layers.{0}.self_attn.' + part + '.{1}'
        for part in ('query', 'key', 'value')),
    r'decoder\.layers\.(\d+)\.self_attn\.attn\.out_proj\.(.*)':
        ('model.decoder.layers.{0}.self_attn.out_proj.{1}',),
    r'decoder\.layers\.(\d+)\.cross_attn_text\.attn\.in_proj_(weight|bias)': tuple(
        'model.decoder.layers.{0}.encoder_attn_text.' + part + '.{1}'
        for part in ('query', 'key', 'value')),
    r'decoder\.layers\.(\d+)\.cross_attn_text\.attn\.out_proj\.(.*)':
        ('model.decoder.layers.{0}.encoder_attn_text.out_proj.{1}',),
    r'decoder\.layers\.(\d+)\.cross_attn\.(.*)': ('model.decoder.layers.{0}.encoder_attn.{1}',),
    r'decoder\.layers\.(\d+)\.ffn\.layers\.0\.0\.(.*)': ('model.decoder.layers.{0}.fc1.{1}',),
    r'decoder\.layers\.(\d+)\.ffn\.layers\.1\.(.*)': ('model.decoder.layers.{0}.fc2.{1}',),
    r'decoder\.layers\.(\d+)\.norms\.0\.(.*)':
        ('model.decoder.layers.{0}.self_attn_layer_norm.{1}',),
    r'decoder\.layers\.(\d+)\.norms\.1\.(.*)':
        ('model.decoder.layers.{0}.encoder_attn_text_layer_norm.{1}',),
    r'decoder\.layers\.(\d+)\.norms\.2\.(.*)':
        ('model.decoder.layers.{0}.encoder_attn_layer_norm.{1}',),
    r'decoder\.layers\.(\d+)\.norms\.3\.(.*)': ('model.decoder.layers.{0}.final_layer_norm.{1}',),
    r'decoder\.ref_point_head\.layers\.(\d+)\.(.*)':
        ('model.decoder.reference_points_head.layers.{0}.{1}',),
    r'decoder\.norm\.(.*)': ('model.decoder.layer_norm.{0}',),
}
"""Entries outside the backbone and the box layers."""

SWIN_RULES: dict[str, tuple[str, ...]] = {
    r'patch_embed\.projection\.(.*)': ('swin.embeddings.patch_embeddings.projection.{0}',),
    r'patch_embed\.norm\.(.*)': ('swin.embeddings.norm.{0}',),
    r'stages\.(\d+)\.blocks\.(\d+)\.norm1\.(.*)':
        ('swin.encoder.layers.{0}.blocks.{1}.layernorm_before.{2}',),
    r'stages\.(\d+)\.blocks\.(\d+)\.norm2\.(.*)':
        ('swin.encoder.layers.{0}.blocks.{1}.layernorm_after.{2}',),
    r'stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.relative_position_bias_table':
        ('swin.encoder.layers.{0}.blocks.{1}.attention.relative_position_bias.'
         'relative_position_bias_table',),
    r'stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.qkv\.(weight|bias)': tuple(
        'swin.encoder.layers.{0}.blocks.{1}.attention.' + part + '_proj.{2}' for part in 'qkv'),
    r'stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.proj\.(.*)':
        ('swin.encoder.layers.{0}.blocks.{1}.attention.o_proj.{2}',),
    r'stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.0\.0\.(.*)':
        ('swin.encoder.layers.{0}.blocks.{1}.mlp.fc1.{2}',),
    r'stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.1\.(.*)':
        ('swin.encoder.layers.{0}.blocks.{1}.mlp.fc2.{2}',),
    r'stages\.(\d+)\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)':
        ('swin.encoder.layers.{0}.downsample.{1}',),
    r'norm1\.(.*)': ('hidden_states_norms.stage2.{0}',),
    r'norm2\.(.*)': ('hidden_states_norms.stage3.{0}',),
    r'norm3\.(.*)': ('hidden_states_norms.stage4.{0}',),
}
"""Entries under ``backbone.``, to those of transformers' SwinBackbone."""

_MERGED = re.compile(r'backbone\.stages\.\d+\.downsample\.')
_BOX_LAYER = re.compile(r'bbox_head\.reg_branches\.(\d+)\.(\d+)\.(weight|bias)')


@dataclass(frozen=True)
class KeyMap:
    """
    What becomes of every entry of a file.

    Parameters
    ----------
    targets : dict
        Names in transformers by name in the file. Several mean thirds by rows (query, key,
        value), or for a box layer the same again.
    unused : dict
        Reason by name.
    unknown : list of str
        Entries that no rule is about.

    """

    targets: dict[str, tuple[str, ...]]
    unused: dict[str, str]
    unknown: list[str]


def map_keys(names: Mapping[str, object], decoder_layers: int = 6) -> KeyMap:
    """
    Find what becomes of each entry under ``detector.`` (that prefix left out).

    Parameters
    ----------
    names : mapping
        With the entries' names as keys.
    decoder_layers : int
        The box layers of this number belong to the decoder; the next one proposes the queries.

    """
    every = {**RULES, **{rf'backbone\.{pattern}': tuple(_SWIN + name for name in targets)
                         for pattern, targets in SWIN_RULES.items()}}
    compiled = [(re.compile(pattern), targets) for pattern, targets in every.items()]
    targets: dict[str, tuple[str, ...]] = {}
    unused: dict[str, str] = {}
    unknown = []
    for name in names:
        reason = next((why for pattern, why in UNUSED.items() if re.fullmatch(pattern, name)), '')
        found = _box_targets(name, decoder_layers) or _targets(name, compiled)
        if reason:
            unused[name] = reason
        elif found:
            targets[name] = found
        else:
            unknown.append(name)
    return KeyMap(targets, unused, unknown)


def convert(
    entries: Mapping[str, Tensor], decoder_layers: int = 6, *, backbone: bool = False,
) -> dict[str, Tensor]:
    """
    Turn entries of a file into those of transformers.

    Parameters
    ----------
    entries : mapping
        By name, ``detector.`` left out.
    decoder_layers : int
        As for `map_keys`.
    backbone : bool
        Whether the backbone comes too, for transformers' own Swin.

    Returns
    -------
    dict of str to Tensor
        State dict; tensors may share memory with those given.

    Raises
    ------
    ValueError
        If there is an entry that no rule is about.

    """
    keys = map_keys(entries, decoder_layers)
    if keys.unknown:
        raise ValueError(f'{len(keys.unknown)} entries are no part of Grounding-DINO, such as '
                         + ', '.join(keys.unknown[:6]))
    state: dict[str, Tensor] = {}
    for name, targets in keys.targets.items():
        value = entries[name]
        if name.startswith('backbone.') and not backbone:
            continue
        if _MERGED.match(name):
            value = _reorder_merged(value)
        copies = len(targets) == 1 or _BOX_LAYER.fullmatch(name)
        parts = [value] * len(targets) if copies else list(torch.chunk(value, len(targets)))
        state.update(zip(targets, parts, strict=True))
    return state


def _targets(
    name: str, rules: list[tuple[re.Pattern[str], tuple[str, ...]]],
) -> tuple[str, ...]:
    for pattern, targets in rules:
        match = pattern.fullmatch(name)
        if match:
            return tuple(target.format(*match.groups()) for target in targets)
    return ()


def _box_targets(name: str, decoder_layers: int) -> tuple[str, ...]:
    """Targets of a box layer: those of the decoder exist twice in transformers."""
    match = _BOX_LAYER.fullmatch(name)
    if not match:
        return ()
    branch, position, kind = int(match[1]), int(match[2]), match[3]
    layer = f'layers.{position // 2}.{kind}'  # Every second module is the activation.
    if branch < decoder_layers:
        return (f'bbox_embed.{branch}.{layer}', f'model.decoder.bbox_embed.{branch}.{layer}')
    return (f'model.encoder_output_bbox_embed.{layer}',)


def _reorder_merged(value: Tensor) -> Tensor:
    """
    Reorder the last axis of a patch merging layer from mmdetection's order to transformers'.

    A merged patch is four pixels of C channels. mmdetection puts the pixels of a channel next to
    each other, in rows: ``channel * 4 + 2 * dy + dx``. transformers puts the channels of a pixel
    next to each other, the pixels in columns: ``(2 * dx + dy) * C + channel``.
    """
    channels = value.shape[-1] // 4
    grid = value.reshape(*value.shape[:-1], channels, 2, 2)  # ..., channel, dy, dx
    return grid.movedim(-3, -1).transpose(-3, -2).reshape(value.shape)  # ..., dx, dy, channel

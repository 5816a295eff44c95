"""
Entries of the detectors inside the authors' ``gdino`` and ``detic`` files.

Those files carry a whole text-driven detector under ``detector.``; tracking needs only its
``backbone``. The rest is known by name and shape, so that a file is checked completely and a
foreign entry is not mistaken for a part of the detector.
"""

from __future__ import annotations

Entries = dict[str, tuple[int, ...]]


def detector_entries(variant: str) -> Entries:
    """
    Names and shapes under ``detector.``, the backbone left out.

    Parameters
    ----------
    variant : str
        ``gdino`` or ``detic``; other variants have none.

    """
    tables = {'gdino': _grounding_dino, 'detic': _detic}
    return _under('detector', tables[variant]()) if variant in tables else {}


def _under(prefix: str, *groups: Entries) -> Entries:
    """Put entries under a common prefix."""
    return {f'{prefix}.{name}': shape for group in groups for name, shape in group.items()}


def _repeat(prefix: str, count: int, *groups: Entries) -> Entries:
    """Repeat entries under ``prefix.0``, ``prefix.1`` and so on."""
    repeated: Entries = {}
    for index in range(count):
        repeated.update(_under(f'{prefix}.{index}', *groups))
    return repeated


def _layer(name: str, *shape: int) -> Entries:
    """Weight and bias of a convolution, a linear layer or a normalization."""
    return {f'{name}.weight': shape, f'{name}.bias': shape[:1]}


def _attention(name: str) -> Entries:
    """Entries of torch's multi-head attention, 256 wide."""
    return _under(f'{name}.attn', {'in_proj_weight': (768, 256), 'in_proj_bias': (768,)},
                  _layer('out_proj', 256, 256))


def _deformable_attention(name: str) -> Entries:
    """Entries of deformable attention: 8 heads, 4 levels, 4 points."""
    return _under(name, _layer('sampling_offsets', 256, 256),
                  _layer('attention_weights', 128, 256), _layer('value_proj', 256, 256),
                  _layer('output_proj', 256, 256))


def _feed_forward(hidden: int) -> Entries:
    return {**_layer('ffn.layers.0.0', hidden, 256), **_layer('ffn.layers.1', 256, hidden)}


def _grounding_dino() -> Entries:
    """Grounding-DINO with its BERT text encoder."""
    neck = {}
    for index, width in enumerate((256, 512, 1024)):
        neck.update(_under(f'convs.{index}', _layer('conv', 256, width, 1, 1), _layer('gn', 256)))
    neck.update(_under('extra_convs.0', _layer('conv', 256, 1024, 3, 3), _layer('gn', 256)))
    fusion = _under(
        'attn', _layer('v_proj', 1024, 256), _layer('l_proj', 1024, 256),
        _layer('values_v_proj', 1024, 256), _layer('values_l_proj', 1024, 256),
        _layer('out_v_proj', 256, 1024), _layer('out_l_proj', 256, 1024))
    encoder = {
        **_repeat('layers', 6, _deformable_attention('self_attn'), _feed_forward(2048),
                  _repeat('norms', 2, _norm(256))),
        **_repeat('text_layers', 6, _attention('self_attn'), _feed_forward(1024),
                  _repeat('norms', 2, _norm(256))),
        **_repeat('fusion_layers', 6, {'gamma_v': (256,), 'gamma_l': (256,)},
                  _layer('layer_norm_v', 256), _layer('layer_norm_l', 256), fusion),
    }
    decoder = {
        **_repeat('layers', 6, _attention('self_attn'), _attention('cross_attn_text'),
                  _deformable_attention('cross_attn'), _feed_forward(2048),
                  _repeat('norms', 4, _norm(256))),
        **_layer('ref_point_head.layers.0', 256, 512),
        **_layer('ref_point_head.layers.1', 256, 256),
        **_layer('norm', 256),
    }
    boxes = _repeat('reg_branches', 7, _layer('0', 256, 256), _layer('2', 256, 256),
                    _layer('4', 4, 256))
    return {
        'level_embed': (4, 256),
        'query_embedding.weight': (900, 256),
        'dn_query_generator.label_embedding.weight': (80, 256),
        **_layer('memory_trans_fc', 256, 256),
        **_layer('memory_trans_norm', 256),
        **_layer('text_feat_map', 256, 768),
        **_under('neck', neck), **_under('encoder', encoder), **_under('decoder', decoder),
        **_under('bbox_head', boxes),
        **_under('language_model.language_backbone.body.model', _bert()),
    }


def _norm(width: int) -> Entries:
    return {'weight': (width,), 'bias': (width,)}


def _bert(width: int = 768, hidden: int = 3072) -> Entries:
    """BERT base, uncased vocabulary."""
    layer = {
        **_layer('attention.self.query', width, width),
        **_layer('attention.self.key', width, width),
        **_layer('attention.self.value', width, width),
        **_layer('attention.output.dense', width, width),
        **_layer('attention.output.LayerNorm', width),
        **_layer('intermediate.dense', hidden, width),
        **_layer('output.dense', width, hidden),
        **_layer('output.LayerNorm', width),
    }
    return {
        'embeddings.word_embeddings.weight': (30522, width),
        'embeddings.position_embeddings.weight': (512, width),
        'embeddings.token_type_embeddings.weight': (2, width),
        **_layer('embeddings.LayerNorm', width),
        **_repeat('encoder.layer', 12, layer),
        **_layer('pooler.dense', width, width),
    }


def _detic() -> Entries:
    """CenterNet2 with three cascaded box heads and the class matrix of LVIS."""
    neck = {}
    for index, width in enumerate((256, 512, 1024)):
        neck.update(_layer(f'lateral_convs.{index}.conv', 256, width, 1, 1))
    neck.update(_repeat('fpn_convs', 5, _layer('conv', 256, 256, 3, 3)))
    regions = {
        **_repeat('reg_convs', 4, _layer('conv', 256, 256, 3, 3), _layer('gn', 256)),
        **_layer('conv_cls', 1, 256, 3, 3), **_layer('conv_reg', 4, 256, 3, 3),
        **_repeat('scales', 5, {'scale': ()}),
    }
    boxes = _repeat(
        'bbox_head', 3,
        {'freq_weight': (1203,), 'fc_cls.zs_weight': (512, 1204)},
        _layer('fc_cls.linear', 512, 1024), _layer('fc_reg.0', 1024, 1024),
        _layer('fc_reg.2', 4, 1024), _layer('shared_fcs.0', 1024, 12544),
        _layer('shared_fcs.1', 1024, 1024))
    masks = {
        **_repeat('convs', 4, _layer('conv', 256, 256, 3, 3)),
        'upsample.weight': (256, 256, 2, 2), 'upsample.bias': (256,),
        **_layer('conv_logits', 1, 256, 1, 1),
    }
    return {**_under('neck', neck), **_under('rpn_head', regions),
            **_under('roi_head', boxes, _under('mask_head', masks))}

"""
Grounding-DINO of ``transformers`` on image features that come from elsewhere.

The library's model runs its image backbone inside its forward pass. Here that part is taken out:
the backbone's features are computed once and then read with each part of a long list of classes,
and a MASA model with the same backbone can give them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from masa_ros.detectors import import_library
from masa_ros.detectors.grounding_dino_keys import convert
from masa_ros.detectors.on_backbone import Backbone, PREFIX
import torch
from torch import nn, Tensor
from torch.nn import functional

EXTRA = "'masa_ros[grounding-dino]'"

_HEADS = 8
_BERT_HEAD_WIDTH = 64


class _GivenFeatures(nn.Module):
    """Stands in for the image backbone: passes on features that are already there."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[Tensor] = []

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Pair each level with the part of it that belongs to the image."""
        mask = pixel_mask[None].float()
        return [(level, functional.interpolate(mask, size=level.shape[-2:])[0].bool())
                for level in self.levels]


class _RememberedText(nn.Module):
    """The text encoder; what it gave for a text is kept until the text changes."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.known: dict[tuple[int, ...], Tensor] = {}

    def forward(
        self, input_ids: Tensor, mask: Tensor, token_type_ids: Tensor, position_ids: Tensor,
        **_: Any,
    ) -> SimpleNamespace:
        """Encode the text of the first image, which is that of all."""
        key = tuple(input_ids[0].tolist())
        if key not in self.known:
            encoded = self.encoder(
                input_ids[:1], mask[:1], token_type_ids[:1], position_ids[:1], return_dict=True)
            self.known[key] = encoded.last_hidden_state
        hidden = self.known[key].expand(len(input_ids), -1, -1)
        return SimpleNamespace(last_hidden_state=hidden)


class TextGuidedNetwork:
    """
    Grounding-DINO without its image backbone.

    Parameters
    ----------
    network : GroundingDinoForObjectDetection
        With its weights; its backbone and text encoder are replaced here.
    device : torch.device
        Where it runs.

    """

    def __init__(self, network: Any, device: torch.device) -> None:
        self.longest_text = int(network.config.max_text_len)
        self._features = _GivenFeatures()
        network.model.backbone.conv_encoder = self._features
        self._text = _RememberedText(network.model.text_backbone)
        network.model.text_backbone = self._text
        self._network: Any = network.to(device).eval().requires_grad_(False)
        self._device = device

    @torch.inference_mode()
    def __call__(
        self, levels: Sequence[Tensor], mask: Tensor, token_ids: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """
        Find what a text names.

        Parameters
        ----------
        levels : sequence of Tensor
            Three levels ``(B, C, h, w)`` of the backbone, of any type.
        mask : Tensor
            ``(B, H, W)`` bool: pixels of the network's input that belong to the image.
        token_ids : Tensor
            ``(T,)`` int64.

        Returns
        -------
        token_scores : Tensor
            ``(B, Q, T)`` in ``[0, 1]``.
        boxes : Tensor
            ``(B, Q, 4)``: centre and size, as shares of the image without padding.

        """
        self._features.levels = [level.float() for level in levels]
        batch, height, width = mask.shape
        pixels = torch.empty((), device=self._device).expand(batch, 3, height, width)
        ids = token_ids.to(self._device).expand(batch, -1)
        output = self._network(
            pixel_values=pixels, pixel_mask=mask.to(self._device).long(), input_ids=ids,
            attention_mask=torch.ones_like(ids), return_dict=True)
        self._features.levels = []
        return output.logits[..., :ids.shape[1]].sigmoid(), output.pred_boxes

    def forget_texts(self) -> None:
        """Drop the remembered texts, when others are looked for."""
        self._text.known.clear()


def from_folder(folder: Path, device: torch.device) -> tuple[TextGuidedNetwork, Backbone]:
    """
    Load network and backbone from a folder in the library's own form.

    Raises
    ------
    ValueError
        If it holds no Grounding-DINO.

    """
    transformers: Any = import_library('transformers', 'grounding_dino', EXTRA)
    try:
        network = transformers.GroundingDinoForObjectDetection.from_pretrained(
            str(folder), local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        problem = ' '.join(str(error).split())[:300]
        raise ValueError(f'{folder} holds no Grounding-DINO of transformers ({problem}); expected '
                         'config.json and model.safetensors') from error
    library_backbone = network.model.backbone.conv_encoder.model.to(device).eval()

    def backbone(pixels: Tensor) -> Sequence[Tensor]:
        levels: Sequence[Tensor] = library_backbone(pixels, return_dict=True).feature_maps
        return levels

    return TextGuidedNetwork(network, device), backbone


def from_entries(
    entries: Mapping[str, Tensor], device: torch.device, where: str,
) -> TextGuidedNetwork:
    """
    Build the network from the entries of a MASA file.

    Parameters
    ----------
    entries : mapping
        Of the whole file.
    device : torch.device
        Where it runs.
    where : str
        Name of the file, for messages.

    Raises
    ------
    ValueError
        If the file holds no Grounding-DINO, or one that lacks entries.

    """
    transformers: Any = import_library('transformers', 'grounding_dino', EXTRA)
    inner = {name.removeprefix(PREFIX): value for name, value in entries.items()
             if name.startswith(PREFIX)}
    try:
        config = _config(transformers, inner)
        state = convert(inner, config.decoder_layers)
    except KeyError as error:
        raise ValueError(f'{where} holds no Grounding-DINO: {PREFIX}{error.args[0]} is missing; '
                         'give gdino_masa.pth, or a folder of transformers') from None
    except ValueError as error:
        raise ValueError(f'{where} holds another detector: {error}') from None
    network = transformers.GroundingDinoForObjectDetection(config)
    network.model.backbone.conv_encoder = _GivenFeatures()
    try:
        network.load_state_dict({name: value.float() for name, value in state.items()})
    except RuntimeError as error:
        problem = ' '.join(str(error).split())[:400]
        raise ValueError(f'{where} does not fit Grounding-DINO: {problem}') from error
    return TextGuidedNetwork(network, device)


def _config(transformers: Any, entries: Mapping[str, Tensor]) -> Any:
    """Sizes of a network, read from the shapes of its entries."""
    def layers(prefix: str) -> int:
        return len({name.removeprefix(prefix).partition('.')[0] for name in entries
                    if name.startswith(prefix)})

    bert = 'language_model.language_backbone.body.model.'
    levels, width = entries['level_embed'].shape
    words, text_width = entries[bert + 'embeddings.word_embeddings.weight'].shape
    samples = entries['encoder.layers.0.self_attn.attention_weights.weight'].shape[0]
    # Only the widths of the image backbone matter here; it is taken out before it is used.
    backbone = {'model_type': 'swin', 'depths': [1] * 4, 'num_heads': [1] * 4,
                'embed_dim': entries['backbone.patch_embed.projection.weight'].shape[0],
                'out_indices': [2, 3, 4]}
    text = {'model_type': 'bert', 'vocab_size': words, 'hidden_size': text_width,
            'num_hidden_layers': layers(bert + 'encoder.layer.'),
            'num_attention_heads': max(1, text_width // _BERT_HEAD_WIDTH),
            'intermediate_size':
                entries[bert + 'encoder.layer.0.intermediate.dense.weight'].shape[0],
            'max_position_embeddings':
                entries[bert + 'embeddings.position_embeddings.weight'].shape[0]}
    return transformers.GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=width, num_feature_levels=levels,
        num_queries=entries['query_embedding.weight'].shape[0],
        encoder_layers=layers('encoder.layers.'), decoder_layers=layers('decoder.layers.'),
        encoder_ffn_dim=entries['encoder.layers.0.ffn.layers.0.0.weight'].shape[0],
        decoder_ffn_dim=entries['decoder.layers.0.ffn.layers.0.0.weight'].shape[0],
        encoder_attention_heads=_HEADS, decoder_attention_heads=_HEADS,
        encoder_n_points=samples // (_HEADS * levels),
        decoder_n_points=samples // (_HEADS * levels),
        decoder_bbox_embed_share=False, two_stage_bbox_embed_share=False)

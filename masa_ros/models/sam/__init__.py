"""
Segment Anything (SAM): image encoder with taps, boxes as prompts, masks as run lengths.

The networks are those of the ``segment-anything`` package; MobileSAM's encoder is ours. The parts
are plain functions and modules that the MASA adapter uses too:

=================  ============================================================================
`architecture`     sizes of the published variants, networks without weights
`checkpoint`       published files into networks, every name and shape checked
`preprocess`       images into normalized, padded batches
`encoder`          one pass gives the global blocks' outputs and the neck's features
`decoder`          all boxes of an image through the mask decoder in batches
`postprocess`      low-resolution logits into `RoiMask` without full-size planes
`grid`             the automatic mask generator over a grid of points (the baseline)
`model`            the `Model` protocol over all of it
=================  ============================================================================
"""

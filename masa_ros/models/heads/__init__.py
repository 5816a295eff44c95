"""Heads over the adapter's pyramid: proposals, class-agnostic boxes, appearance embeddings."""

"""MASA adapter: a feature pyramid over a frozen backbone, then three dynamic fusion blocks."""

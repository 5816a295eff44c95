"""Backbones of the MASA variants other than SAM's, which are in ``models/sam``."""

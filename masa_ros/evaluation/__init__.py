"""Scoring of saved tracking results against ground truth."""

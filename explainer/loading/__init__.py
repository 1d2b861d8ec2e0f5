"""Checkpoints as data: read safely, repaired, and opened."""

"""Mergeable statistics of activations; knows numbers, not models or files."""

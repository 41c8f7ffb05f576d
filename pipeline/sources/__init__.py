"""Samples in a fixed order, from files, arrays and data sets; knows no model."""

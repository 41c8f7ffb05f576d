"""Plots and the page that explains a run, drawn from sketches in constant memory."""

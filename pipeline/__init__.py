"""Compute, sketch and normalise the activations of Keras networks, out of core."""

if __name__ == "pipeline":
    raise ImportError("import actisketch.pipeline, not pipeline: `pip install -e .`, then use the installed name")

"""Keep activations and sketches in a Zarr cache; knows nothing of models.

The contract of the files is in ``storage/README.md``.
"""

if __name__ == "storage":
    raise ImportError("import actisketch.storage, not storage: `pip install -e .`, then use the installed name")

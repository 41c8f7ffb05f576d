"""A run that exists: asked without its model and its data, exported, reported."""

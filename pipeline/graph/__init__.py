"""A Keras network as one flat graph, and the points in it where activations are recorded."""

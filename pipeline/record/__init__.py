"""From samples to committed blocks: the network, its activations, their sketches, the cache."""

"""From the sketches of all blocks to the scale factors of a network."""

"""The handwritten digits and the small trained network that the demo runs on."""

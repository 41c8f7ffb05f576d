"""The stages of a job: each reloads its results if they were made from the same things, and computes them otherwise."""

"""The stages of a job: each reloads its results where they follow from the same things, else makes them."""

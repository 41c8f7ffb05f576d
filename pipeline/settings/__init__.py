"""The settings of a job: read once, checked once, frozen."""

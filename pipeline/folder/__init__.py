"""The folder of a run: its files, what they were made from, and how they are replaced."""

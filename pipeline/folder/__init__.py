"""The folder of a run: its documents, what they were made from, and how they are replaced."""

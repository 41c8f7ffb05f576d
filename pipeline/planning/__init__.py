"""What a run will take, before anything runs: blocks, bytes on disk, memory."""

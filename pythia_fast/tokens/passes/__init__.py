"""What is done with many rows, of which only a block is in memory at a time."""

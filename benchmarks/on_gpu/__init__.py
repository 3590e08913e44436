"""What `gpu.py` runs: a module for each theme, and what they share."""

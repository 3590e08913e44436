"""Stream many checkpoints through one resident model."""

"""A run's folder: who writes it, what lies in it, and who works there."""

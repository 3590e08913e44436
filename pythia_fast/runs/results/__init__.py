"""What a sweep found, read from its run folder."""

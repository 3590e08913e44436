"""Large files made of parts of others: whole or not there at all, and resumable."""

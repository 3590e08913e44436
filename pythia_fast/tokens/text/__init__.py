"""Documents out of files of text, and their ids."""

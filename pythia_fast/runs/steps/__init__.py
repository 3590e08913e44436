"""Which of a sweep's steps are computed, by whom, and which take the results of others."""

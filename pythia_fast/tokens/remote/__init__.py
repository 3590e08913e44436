"""Token data on the Hub: what it is called, what of it is here, and the rest on request."""

"""What a sweep will take, before it is begun: here, and on a cluster."""

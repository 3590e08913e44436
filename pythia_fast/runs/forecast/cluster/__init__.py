"""What a sweep would take on a cluster, before there is one."""

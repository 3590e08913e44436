"""Triton kernels, one file each: why it exists, its configurations, the kernel, and its launcher.

Nothing here is imported before a GPU is to compute: triton takes a second to import.
"""

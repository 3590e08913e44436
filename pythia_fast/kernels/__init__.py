"""The operations that cost time, each beside its plain definition in `reference`."""

"""The Hugging Face Hub: how it is asked, and ranges of its files.

huggingface_hub takes its time to be imported: import this room where the Hub is needed.
"""

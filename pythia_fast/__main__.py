"""`python -m pythia_fast` is the command `pythia-fast`."""

from pythia_fast.cli import main

if __name__ == "__main__":
    main(prog_name="pythia-fast")

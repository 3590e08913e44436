"""`python -m pythia_fast` is the command `pythia-fast`."""

import sys


def main() -> None:
    """The command line; Ctrl-C while it is still being imported is no traceback either."""
    try:
        from pythia_fast.cli import main as command
    except KeyboardInterrupt:
        sys.stderr.write("pythia-fast: interrupted\n")
        sys.exit(130)
    command(prog_name="pythia-fast")


if __name__ == "__main__":
    main()

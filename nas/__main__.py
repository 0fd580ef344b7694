"""`python -m nas` is `nas`."""

from nas.cli import main

if __name__ == "__main__":
    main()

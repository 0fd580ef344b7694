"""`python -m latency.serving` serves measurements on this machine."""

from latency.serving.server import main

if __name__ == "__main__":
    main()

"""Search spaces, one in a file."""

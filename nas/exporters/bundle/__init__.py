"""A folder that runs on the user's side: the network in its formats, what it is, how good it is, and a script."""

from nas.exporters.bundle.writing import Bundle, write_bundle

__all__ = ["Bundle", "write_bundle"]

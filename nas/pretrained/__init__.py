"""Networks that candidates need made first: the teacher and its logits, the shared encoder and its features."""

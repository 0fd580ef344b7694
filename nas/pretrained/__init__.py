"""What candidates share: the teacher and its logits, the encoder and its features; the plan by which they are made."""

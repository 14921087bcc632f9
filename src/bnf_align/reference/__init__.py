"""What the model said before training: one float32 per scored token, computed once per content, kept in a cache."""

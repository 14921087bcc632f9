"""A model, its tokenizer and its adapter: loaded in one place, and made ready for training."""

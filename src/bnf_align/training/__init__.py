"""Configuration, the reference cache, the trainer, and what a run says about itself."""

"""The tiny world of the quickstart: tasks with verifiable answers, a tiny model, the paper's claim on a laptop."""

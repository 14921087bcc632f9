"""The command line: one short module per verb, heavy imports inside."""

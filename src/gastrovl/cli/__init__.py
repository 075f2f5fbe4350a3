"""The command line: one file per command, which parses, calls one stage, and prints where the result lies."""

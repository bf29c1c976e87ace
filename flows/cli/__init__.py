"""The command line: one module a verb, one typed result model a verb."""

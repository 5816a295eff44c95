"""Command-line tools: each file parses its arguments and calls the parts that do the work."""

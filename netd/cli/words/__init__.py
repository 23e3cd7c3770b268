"""The words of a command line: flags and their values, and what is printed."""

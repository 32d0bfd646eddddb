"""One module a verb; the command line and the Python API call the same function."""

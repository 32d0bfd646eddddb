"""The server inside the image: `python -m corten.serve`. Must stay light: nothing of the builder is imported here."""

"""Frameworks: recognise a model, say what it needs, load it, tell its schema. One module a framework."""

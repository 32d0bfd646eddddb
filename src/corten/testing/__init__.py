"""Fakes and contract suites, public for plugin authors."""

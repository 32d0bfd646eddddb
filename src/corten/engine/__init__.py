"""Engines run replicas. Each passes `corten.testing.EngineContract`."""

"""Source to image: lock, base, wheels, layers, manifest. No daemon, no root, no Dockerfile."""

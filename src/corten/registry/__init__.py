"""Images to and from registries by the OCI distribution API (https://github.com/opencontainers/distribution-spec)."""

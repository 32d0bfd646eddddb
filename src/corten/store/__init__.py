"""Local content: an OCI image layout on disk, and layers unpacked to run from."""

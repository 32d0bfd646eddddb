"""A small HTTP/1.1 server protocol on asyncio and httptools, shared by the model server, the daemon and the xDS server."""

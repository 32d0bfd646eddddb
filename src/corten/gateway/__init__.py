"""The front door: routes requests to replicas, balances, drains. Envoy, driven from here."""

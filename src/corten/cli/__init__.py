"""Parse, call one op, print. The only place that touches the terminal."""

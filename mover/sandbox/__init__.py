"""A whole site on loopback for `mover demo` and the integration tests: the real servers, started by hand."""

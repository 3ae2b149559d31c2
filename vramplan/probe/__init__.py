"""Eyes on a GPU: what this machine has, read from the driver."""

"""cuDNN's plans for the catalogue's convolutions, as rules that need no cuDNN."""

"""An estimate beside a measurement: residuals, and where every byte on the card went."""

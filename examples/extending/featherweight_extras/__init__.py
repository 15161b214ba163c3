"""Four methods for Featherweight, one of each kind that is added most: see docs/extending."""

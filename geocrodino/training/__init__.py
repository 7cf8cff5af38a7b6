"""Joint training of the two branches."""

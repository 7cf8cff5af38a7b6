"""What lies in folders that a user names: which file is which layer, and a configuration that says why."""

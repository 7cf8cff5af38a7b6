"""The lowest room: names of files, URLs and archives, access to them, and staged writing."""

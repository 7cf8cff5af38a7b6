"""``python -m geocrodino``."""

from geocrodino.cli.app import main

if __name__ == "__main__":
    main()

"""`python -m mover` is the command `mover`."""

from mover.cli.main import main

if __name__ == "__main__":
    main()

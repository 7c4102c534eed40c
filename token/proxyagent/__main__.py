"""`python -m proxyagent` is the command `proxyagent`."""

from proxyagent.cli.main import main

if __name__ == "__main__":
    main()

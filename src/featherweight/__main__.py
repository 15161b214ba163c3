"""`python -m featherweight` is the command `featherweight`."""

from .cli import main

if __name__ == "__main__":
    main()

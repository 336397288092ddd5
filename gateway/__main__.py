"""`python -m gateway` is the `moorage` command."""

from gateway.cli import main

main()

"""`python -m gastrovl`, the command as a module, which is how `torchrun` and `accelerate launch` start it."""

from gastrovl.cli.app import main

main()

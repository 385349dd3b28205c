"""`python -m genserve COMMAND`; torchrun takes it, too: `torchrun ... -m -- genserve train diffusion`."""

from genserve.commands.__main__ import main

if __name__ == "__main__":
    main()

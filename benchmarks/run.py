"""All benchmarks, one after the other: `make bench`."""

import memory
import speed
import startup
import training


def main() -> None:
    """Start-up, speed, memory, training."""
    startup.main()
    speed.main()
    memory.main()
    training.main()


if __name__ == "__main__":
    main()

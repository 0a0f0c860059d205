"""All benchmarks, one after the other: `make bench`."""

import memory
import speed
import startup


def main() -> None:
    """Start-up, speed, memory."""
    startup.main()
    speed.main()
    memory.main()


if __name__ == "__main__":
    main()

"""Seconds until `import longreach` and `longreach --help` are done: best of several, each in a new process.

python benchmarks/startup.py
"""

import subprocess
import sys
import time
from pathlib import Path

MOST = 0.4


def best(command: list[str], tries: int = 7) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(tries):
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603
        times.append(time.perf_counter() - begun)
    return min(times)


def main() -> None:
    """Both, beside the most they may take and a bare interpreter."""
    print(f"python -c pass {best([sys.executable, '-c', 'pass']):.3f} s")
    print(f"import longreach {best([sys.executable, '-c', 'import longreach']):.3f} s (at most {MOST})")
    print(f"longreach --help {best([str(Path(sys.executable).with_name('longreach')), '--help']):.3f} s (at most {MOST})")


if __name__ == "__main__":
    main()

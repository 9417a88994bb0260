"""Whole processes, start-up included: the main job beside the notebook's eight fits in PyTorch, and what an import costs.

    python benchmarks/startup.py [--rounds N] [--out DIR]

In turn, several times: a PyTorch process that does the notebook's eight fits, the main job with no compiled programs kept,
the main job with those of the run before, `import jax, optax, flax`, and `import moejax`. Prints ratios of medians and
writes them to `startup.json` in DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent

# Kind of gate, steps, rate: fixed proportions, a softmax gate, five L1 weights, winner takes all.
NOTEBOOK_FITS = [("fixed", 600, 0.01), ("softmax", 1000, 0.1), *[("softmax", 100, 0.01)] * 5, ("winner", 600, 0.1)]


def notebook_fits() -> None:
    """The eight fits as the notebook does them, on its training rows."""
    import numpy as np
    import torch

    table = np.loadtxt(HERE.parent / "moejax" / "data" / "three_regressions.csv", delimiter=",", skiprows=1)[:500]
    x, y = (torch.tensor(v, dtype=torch.float32) for v in (table[:, :10], table[:, 10]))
    for kind, steps, rate in NOTEBOOK_FITS:
        experts = torch.nn.ModuleList(torch.nn.Linear(10, 1) for _ in range(3))
        gate = torch.nn.Linear(10, 3)
        optimizer = torch.optim.Adam([*experts.parameters(), *gate.parameters()], lr=rate)
        history = []
        for _ in range(steps):
            optimizer.zero_grad()
            predictions = torch.cat([expert(x) for expert in experts], dim=1)
            if kind == "fixed":
                mean = predictions.mean(dim=1)
            elif kind == "softmax":
                mean = (torch.softmax(gate(x), dim=1) * predictions).sum(dim=1)
            else:
                mean = predictions.gather(1, gate(x).argmax(dim=1, keepdim=True)).squeeze(1)
            loss = torch.nn.functional.mse_loss(mean, y)
            loss.backward()
            optimizer.step()
            history.append(loss.item())


def seconds(command: list[str], **environment: str) -> float:
    """How long a process takes; raises if it fails."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environment})
    return time.perf_counter() - started


def measure(rounds: int) -> dict[str, float]:
    """Median seconds of each process."""
    python = sys.executable
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            job = [python, str(HERE / "lambda_grid.py"), "--out", folder]
            cache = {"XDG_CACHE_HOME": folder}
            once = {
                "notebook": seconds([python, __file__, "--notebook-fits"]),
                "cold": seconds(job, **cache),
                "warm": seconds(job, **cache),
                "import_dependencies": seconds([python, "-c", "import jax, optax, flax"]),
                "import_moejax": seconds([python, "-c", "import moejax"]),
            }
        for name, value in once.items():
            times.setdefault(name, []).append(value)
    return {name: median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--out", metavar="DIR", default="results/startup", help="default: %(default)s")
    parser.add_argument("--notebook-fits", action="store_true", help="do those eight fits and nothing else")
    options = parser.parse_args()
    if options.notebook_fits:
        notebook_fits()
        return
    if options.rounds < 1:
        parser.error(f"--rounds: {options.rounds} was given; want at least 1")
    found = measure(options.rounds)
    ratio = {
        "cold": found["cold"] / found["notebook"],
        "warm": found["warm"] / found["notebook"],
        "import": found["import_moejax"] / found["import_dependencies"],
    }
    print(f"main job, nothing compiled before / the notebook's eight fits in PyTorch: {ratio['cold']:.2f}")
    print(f"main job, programs kept from a run before / the notebook's eight fits:    {ratio['warm']:.2f}")
    print(f"import moejax / import jax, optax, flax:                                  {ratio['import']:.2f}")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "startup.json").write_text(
        json.dumps({"seconds": found, "ratio": ratio, "rounds": options.rounds}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()

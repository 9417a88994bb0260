"""What gates share."""

from __future__ import annotations

import jax

Params = dict[str, jax.Array]

"""Numbers as the page reads them: little-endian arrays in base64, a fraction of what JSON takes.

Legend: n values.
"""

import base64
import math
from typing import Any

import numpy as np
import numpy.typing as npt

MILLINATS = 1000
"""Losses are kept in thousandths of a nat."""
NOT_FINITE = 65_535
"""The code of a loss that is NaN or infinite."""


def packed(values: npt.NDArray[Any]) -> dict[str, Any]:
    """The dtype ("<f4", "|i1", "<u2", …) and the bytes of an array, in C order."""
    plain = np.ascontiguousarray(values)
    plain = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
    return {"dtype": plain.dtype.str, "data": base64.b64encode(plain.tobytes()).decode()}


def losses(nats_n: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Nats to thousandths, at most 65.534 of them; NOT_FINITE for what is not finite."""
    finite_n = np.isfinite(nats_n)
    most = (NOT_FINITE - 1) / MILLINATS
    kept_n = np.where(finite_n, nats_n, 0).clip(0, most).astype(np.float64)
    return np.where(finite_n, np.rint(kept_n * MILLINATS), NOT_FINITE).astype(np.uint16)


def plain(value: Any) -> Any:
    """What JSON can say: NaN and infinities become their names, everything else odd its words."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # "nan", "inf", "-inf"
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)

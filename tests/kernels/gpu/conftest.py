"""What the tests of Triton kernels share."""

import pytest
import torch


@pytest.fixture(scope="session", params=[torch.float16, torch.float32, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest, kernel_device: torch.device) -> torch.dtype:
    """What the kernels are tested in: float32 shows that the equations are right.

    The interpreter multiplies bfloat16 wrongly; a GPU is given half types only.
    """
    kind: torch.dtype = request.param
    if kernel_device.type == "cpu" and kind == torch.bfloat16:
        pytest.skip("triton's interpreter is wrong for products of bfloat16")
    if kernel_device.type == "cuda" and kind == torch.float32:
        pytest.skip("on a GPU, torch computes in float32")
    return kind

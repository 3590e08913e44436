"""From files to named tensor ranges: formats, folders, the Hub. Everything read is checked.

Neither torch nor huggingface_hub is imported before it is needed: the Hub's series is taken from
`series.hub`.
"""

from pythia_fast.series.checkpoint import Checkpoint, CheckpointFile, FetchReport
from pythia_fast.series.gpt_neox import GptNeoxSeries
from pythia_fast.series.local import LocalSeries
from pythia_fast.series.revision import Revision
from pythia_fast.series.safetensors import read_safetensors
from pythia_fast.series.sources import Ahead, CheckpointSeries, local_series, names_of, open_series
from pythia_fast.series.tensors import TensorRange
from pythia_fast.series.torch_zip import read_torch_zip
from pythia_fast.series.write import write_checkpoint, write_safetensors, write_torch_zip

__all__ = [
    "Ahead",
    "Checkpoint",
    "CheckpointFile",
    "CheckpointSeries",
    "FetchReport",
    "GptNeoxSeries",
    "LocalSeries",
    "Revision",
    "TensorRange",
    "local_series",
    "names_of",
    "open_series",
    "read_safetensors",
    "read_torch_zip",
    "write_checkpoint",
    "write_safetensors",
    "write_torch_zip",
]

"""Memory of the output head and the loss: logits dwarf everything else of a last stage with few layers.

Copies of the logits (one element per token and word of a rank's share of the vocabulary) alive at the peak:

- ``eager`` (torch ``cross_entropy`` of ``logits.float()``): the 16-bit logits, log-softmax in fp32, and in the backward pass
  the gradients of it and of its input in fp32: 2 + 4 + 4 + 4 bytes.
- ``parallel`` (Megatron-LM's vocab-parallel cross entropy): logits, fp32 copy, copy less its maximum, exponentials:
  2 + 4 + 4 + 4.
- ``fused`` (Megatron-Core's ``fused_vocab_parallel_cross_entropy``): an fp32 copy, changed in place, beside the logits in the
  forward pass and beside their 16-bit gradient in the backward pass: 4 + 2.
- ``compiled`` (torch.compile of the loss): logits and their 16-bit gradient: 2 + 2.
"""

from __future__ import annotations

from distsim.models.spec import Model
from distsim.workload.training.memory.weights import vocabulary
from distsim.workload.training.plan import Plan
from distsim.workload.training.stack import Stack

#: bytes per logit at the peak of the loss, 16-bit training
LOSS_BYTES = {"eager": 14, "parallel": 14, "fused": 6, "compiled": 4}
#: bytes per logit that a multi-token-prediction loss keeps while the others are computed: its exponentials in fp32
_KEPT = 4


def kept(model: Model, tokens: int, width: int, tp: int, sequence_parallel: bool) -> float:
    """Bytes kept for the backward pass beside the loss: the final norm's input and output, those of extra losses."""
    stream = tokens * model.hidden / (tp if sequence_parallel else 1) * width
    extra = model.mtp * (tokens * vocabulary(model, tp) / tp * _KEPT + 4 * stream)
    return 2 * stream + extra


def loss_peak(model: Model, plan: Plan, stack: Stack, tokens: int, width: int) -> float:
    """Bytes of logits while the loss is computed."""
    per_logit = LOSS_BYTES[stack.loss] + (width - 2) * 2
    return tokens * vocabulary(model, plan.tp) / plan.tp * per_logit


def head_backward(model: Model, plan: Plan, tokens: int, width: int) -> float:
    """Bytes while the head's gradients are computed: the logits' gradient, the gathered input and its gradient."""
    gathered = tokens * model.hidden * width * (2 if plan.sequence_parallel else 1)
    return tokens * vocabulary(model, plan.tp) / plan.tp * width + gathered

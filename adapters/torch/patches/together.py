"""What of torch is exchanged while a module is traced, and put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import adapters.torch.patches.answers as answers
import adapters.torch.patches.associative as associative
import adapters.torch.patches.batching as batching
import adapters.torch.patches.clamping as clamping
import adapters.torch.patches.distributions as distributions
import adapters.torch.patches.flex as flex
import adapters.torch.patches.lengths as lengths
import adapters.torch.patches.linear_algebra as linear_algebra
import adapters.torch.patches.losses as losses
import adapters.torch.patches.masks as masks
import adapters.torch.patches.packing as packing
import adapters.torch.patches.pooling_1d as pooling_1d
import adapters.torch.patches.recurrent as recurrent
import adapters.torch.patches.tables as tables
import adapters.torch.patches.views as views
import adapters.torch.sizes.guards as guards
import adapters.torch.sizes.known_numbers as known_numbers
import adapters.torch.sizes.quotients as quotients
import adapters.torch.tracing.custom_operators as custom_operators

PATCHES = (
    known_numbers.known_numbers,
    recurrent.whole_recurrent_layers, packing.whole_packed_sequences, masks.masks_as_given, pooling_1d.free_lengths,
    losses.traceable_losses, linear_algebra.traceable_linear_algebra, answers.answers_as_tensors, tables.free_tables, views.quick_views,
    quotients.small_quotients, custom_operators.traceable_bodies, distributions.unchecked_distributions, batching.free_batches,
    flex.dense_flex_attention, associative.free_associative_scans,
    clamping.clamped_slices, lengths.sized_tensors, guards.places_kept,
)


@contextmanager
def traceable() -> Iterator[None]:
    """While active, a trace keeps whole, or leaves free, what torch's own tracing unrolls or fixes."""
    with ExitStack() as stack:
        for patch in PATCHES:
            stack.enter_context(patch())
        yield

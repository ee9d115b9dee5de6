"""Functions of one and of two sequences (batch, time, 3), one expression each, that the sweeps run at sizes not traced."""

from __future__ import annotations

ONE = """
x[:, :6]   x[:, 6:]   x[:, -6:]   x[:, :-6]   x[:, 2:-2]   x[:, -6:-2]   x[:, 1::3]   x[:, -5::2]   x[:, ::4]   x[:, 3]
x[:, -3]   x[:, 1:2]   x[:, None, :6]   x[..., :2]   x[:, x.shape[1] // 2:]   x[:, :x.shape[1] // 2]   x[:, :x.shape[1] - 2]
x[:, -(x.shape[1] // 3):]   x.narrow(1, 2, 3)   x.narrow(1, x.shape[1] - 2, 2)   torch.cat(x.split(6, 1), 1)
sum(p.mean(1) for p in x.split(6, 1))   x.sum(1) * len(x.split(6, 1))   torch.cat(x.chunk(3, 1), 1)
torch.stack([p.mean(1) for p in x.chunk(3, 1)])   torch.cat([p.sum(1) for p in x.tensor_split((3, 7), 1)])
x.unfold(1, 4, 2)   x.unfold(1, 3, 1).mean(-1)   F.pad(x, (0, 0, 2, 1))   F.pad(x, (0, 0, -2, -1))
F.pad(x, (0, 0, 0, (-x.shape[1]) % 4))   F.pad(x, (0, 0, 2, 2), "replicate")   F.pad(x.transpose(1, 2), (2, 1), "reflect")
F.pad(x.transpose(1, 2), (2, 1), "circular")   x.flip(1)   x.roll(2, 1)   x.roll(-1, 1)   x.cumsum(1)   x.cumprod(1)
x.cummax(1)[0]   x.diff(dim=1)   x.diff(n=2, dim=1)   x.sort(1)[0]   x.topk(3, 1)[0]   x.kthvalue(2, 1)[0]   x.median(1)[0]
x.mode(1)[0]   x.max(1)[0]   x.mean(1)   x.var(1)   x.std(1)   x.norm(dim=1)   x.logsumexp(1)   x.softmax(1)   x.amax((0, 1))
x.argmax(1)   x.prod(1)   x.quantile(0.5, 1)   x.transpose(0, 1).reshape(-1, 6)   x.reshape(x.shape[0], -1)
x.reshape(-1, 3)   x.flatten()   x.unflatten(2, (3, 1))   x.repeat(1, 2, 1)   x.repeat_interleave(3, 1)   x.tile(2, 1)
x.expand(4, *x.shape)   x.movedim(1, 0)   torch.outer(x[0, :, 0], x[0, :, 1])   torch.cdist(x, x)   x @ x.transpose(1, 2)
torch.einsum("bic,bjc->bij", x, x)   (x @ x.transpose(1, 2)).tril()   (x @ x.transpose(1, 2)).triu(1)
(x @ x.transpose(1, 2)).diagonal(0, 1, 2)   torch.diag_embed(x)   torch.arange(x.shape[1]) + x[..., 0]
torch.linspace(0, 1, x.shape[1])[:, None] * x   torch.ones(x.shape[1]).cumsum(0)   torch.eye(x.shape[1]) @ x
torch.zeros(x.shape[1], x.shape[1]).fill_diagonal_(1) @ x   x * torch.hann_window(x.shape[1])[:, None]
x + torch.arange(99.0).reshape(33, 3)[: x.shape[1]]   x / x.shape[1]   x * x.shape[1] ** 0.5   x.masked_fill(x > 2, 0)
x.where(x > 2, -x)   x.clamp(1, 3)   F.avg_pool1d(x.transpose(1, 2), 3)   F.max_pool1d(x.transpose(1, 2), 2, ceil_mode=True)
F.adaptive_avg_pool1d(x.transpose(1, 2), 4)   F.adaptive_max_pool1d(x.transpose(1, 2), 3)
F.interpolate(x.transpose(1, 2), scale_factor=2)   F.interpolate(x.transpose(1, 2), size=7, mode="linear")
F.layer_norm(x, (3,))   F.normalize(x, dim=1)   F.conv1d(x.transpose(1, 2), torch.ones(2, 3, 3), stride=2)
F.conv_transpose1d(x.transpose(1, 2), torch.ones(3, 2, 3), stride=2)   torch.fft.rfft(x, dim=1).abs()
torch.fft.irfft(torch.fft.rfft(x, dim=1), n=x.shape[1], dim=1)   F.scaled_dot_product_attention(x, x, x)
F.scaled_dot_product_attention(x, x, x, is_causal=True)   F.glu(x.repeat(1, 1, 2))   x.new_zeros(x.shape[1], 2) + 1
x[:, :6] + torch.arange(x[:, :6].shape[1])[:, None]   torch.slice_scatter(x, x[:, :4] * 2, 1, 0, 4)
torch.select_scatter(x, x[:, 0], 1, 2)   x.index_select(1, torch.tensor([0, 2]))   x.sum(1) if x.shape[1] > 8 else x.mean(1)
x.sum(1) if x.shape[1] % 2 else x.mean(1)   x.take_along_dim(x.argsort(1), 1)   torch.bucketize(x, torch.tensor([1.0, 2.0]))
torch.slice_scatter(x, x[:, :2], 1, 3, 5)   torch.slice_scatter(x, x[:, :1], 1, 3, 5, 2)   torch.slice_scatter(x, x[:, :-2] * 3, 1, 2)
torch.select_scatter(x, x[:, 0], 1, -3)   torch.slice_scatter(x, torch.ones(2, 3, 3), 1, 2, 5)   x[:, [0, 5]]   x[:, [-1, -6]]
F.pad(torch.cat([x, x[:, :2]], 1).transpose(1, 2), (5, 1), "circular")   F.pad(x[:, ::2].transpose(1, 2), (2, 1), "reflect")
x.gather(1, torch.full((2, 1, 3), 4))   x.index_fill(1, torch.tensor([4]), 0.5)   x.index_add(1, torch.tensor([4]), x[:, :1])
x.index_copy(1, torch.tensor([5]), x[:, :1])   x.scatter(1, torch.full((2, 1, 3), 4), 0.5)   x.put(torch.tensor([20]), torch.tensor([1.0]))
x.scatter_add(1, torch.full((2, 1, 3), 4), x)   x.take(torch.tensor([20, -20]))   F.conv1d(x.transpose(1, 2), torch.ones(2, 3, 4))
F.conv1d(x.transpose(1, 2), torch.ones(2, 3, 3), dilation=3, padding=1)   F.max_pool1d(x.transpose(1, 2), 5, 2, 1)
F.lp_pool1d(x.transpose(1, 2), 2, 4)   F.avg_pool1d(x.transpose(1, 2), 4)   x.unsqueeze(1).unfold(2, 5, 3)
F.interpolate(x.transpose(1, 2), scale_factor=0.4)   F.conv_transpose1d(x.transpose(1, 2), torch.ones(3, 2, 3), padding=3)
x.diagonal(3, 1, 2)   x.unbind(1)[2]   x.swapaxes(1, 2)[..., 4]   x.reshape(2, 3, -1, 3)   x.unflatten(1, (3, -1))
x.cov() if x.dim() == 2 else x[0].cov()
torch.stft(x[..., 0], 4, window=torch.ones(4), return_complex=True).abs()   x[:, 2] + x[:, -2]   x.chunk(2, 1)[1]   x.split(2, 1)[1]
torch.linalg.solve(x[:, :3] + 5 * torch.eye(3), x[:, :3])   x.tensor_split(4, 1)[3]   torch.combinations(x[0, :, 0])
torch.trapezoid(x, dim=1)   torch.block_diag(x[0], x[1])   torch.rot90(x, 1, (1, 2))   x.renorm(2, 1, 1.0)   x.logcumsumexp(1)
F.channel_shuffle(x.unsqueeze(-1), 3)   x.argsort(1)   x.nanmedian(1)[0]   torch.bucketize(x, x[0, :, 0].sort()[0])
"""

TWO = """
a[:, :b.shape[1]]   a[:, -b.shape[1]:]   a[:, b.shape[1]:]   a[:, :-b.shape[1]]   a[:, :b.shape[1]] + b[:, :a.shape[1]]
torch.cat([a, b], 1)   torch.cat([a, b], 1)[:, -6:]   torch.cat([a, b], 1)[:, :6]   torch.cat([a, b], 1)[:, b.shape[1]:]
torch.stack([a.sum(1), b.sum(1)])   a @ b.transpose(1, 2)   torch.cdist(a, b)   F.scaled_dot_product_attention(a, b, b)
F.scaled_dot_product_attention(a, b, b, is_causal=True)   torch.einsum("bic,bjc->bij", a, b).softmax(-1) @ b
(a[:, :, None] - b[:, None]).abs().sum(-1)   F.pad(a, (0, 0, 0, b.shape[1]))   a.repeat(1, b.shape[1], 1)
a.mean(1) + b.mean(1)   a.sum(1) * b.shape[1]   a.mean(1) if a.shape[1] < b.shape[1] else b.mean(1)
a.sum(1) if a.shape[1] % b.shape[1] == 0 else b.sum(1)   a[:, a.shape[1] // 2:].sum(1) + b[:, : b.shape[1] // 2].sum(1)
torch.outer(a[0, :, 0], b[0, :, 0])   F.interpolate(a.transpose(1, 2), size=b.shape[1])
F.adaptive_avg_pool1d(a.transpose(1, 2), b.shape[1])   a.new_zeros(a.shape[0], b.shape[1], 3) + b
torch.arange(a.shape[1])[:, None] - torch.arange(b.shape[1])   (a @ b.transpose(1, 2)).tril(b.shape[1] - a.shape[1])
a.roll(b.shape[1], 1)   torch.cat([a.flip(1), b], 1).cumsum(1)   torch.kron(a[0], b[0])
torch.slice_scatter(torch.cat([a, b], 1), b, 1, a.shape[1])   torch.slice_scatter(torch.cat([a, b], 1), a * 2, 1, 0, a.shape[1])
F.pad(b.transpose(1, 2), (a.shape[1], 0), "circular")   F.pad(b.transpose(1, 2), (0, a.shape[1]), "reflect")   b.narrow(1, 0, a.shape[1])
b[:, a.shape[1]]   b[:, -a.shape[1]]   b.unfold(1, a.shape[1], 1).sum(-1)   b.topk(a.shape[1], 1)[0]   b.kthvalue(a.shape[1], 1)[0]
b.split([a.shape[1], b.shape[1] - a.shape[1]], 1)[1]   F.conv1d(b.transpose(1, 2), a.transpose(1, 2))   b[:, :: a.shape[1]]
torch.searchsorted(a[0, :, 0].sort()[0], b)   a.flatten(1)[:, : b.shape[1]]   b.diagonal(a.shape[1] - 4, 1, 2)
a.sum(1) + b.shape[1] % a.shape[1]   torch.select_scatter(b, b[:, 0], 1, a.shape[1])   torch.select_scatter(b, b[:, 0], 1, -a.shape[1])
b.roll((a.shape[1], 1), (1, 2))
"""


def functions(table: str) -> list[str]:
    """The expressions of a table, which stand two blanks or more apart."""
    return [item.strip() for line in table.strip().splitlines() for item in line.split("  ") if item.strip()]
